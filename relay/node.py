"""The one place where a node is put together, started and taken down."""

import asyncio
import contextlib

import structlog
from aiohttp import web

from relay import logs
from relay.closing import CloseReason
from relay.config import NodeConfig
from relay.connection import Connections
from relay.desk import Services
from relay.dialect.v1 import DialectV1
from relay.dialect.v2 import DialectV2
from relay.doorman import Doorman
from relay.errors import NodeFailure, StoreUnavailable
from relay.fanout import FanOut
from relay.heart import Heart
from relay.http import make_app
from relay.metrics import Metrics
from relay.outbox import Flusher
from relay.redis.broker import Broker
from relay.redis.channel_log import ChannelLog
from relay.redis.client import RedisClient
from relay.redis.connect import Make
from relay.redis.directory import Directory
from relay.redis.dues import Dues
from relay.redis.inbox import Inbox
from relay.redis.keys import Keys
from relay.redis.leases import Leases
from relay.redis.near import Near
from relay.redis.near_log import NearLog
from relay.redis.nodes import Registry
from relay.redis.promises import Promises
from relay.services.accounts import Accounts
from relay.services.channels import Channels
from relay.services.messages import Messages
from relay.services.presence import Presence
from relay.services.rule import Rule
from relay.sessions import Sessions

log = structlog.get_logger()

_GOODBYE_SECONDS = 5.0
_START_RETRY_SECONDS = 0.5
_BACKLOG = 1024


class Node:
    """A relay node: serves sessions from `start` to `stop`; everything that outlives it is in Redis."""

    def __init__(self, config: NodeConfig, make: Make, near: Make | None = None) -> None:
        """`make` builds redis-py clients for the cluster's Redis, `near` for a replica of it."""
        self._config = config
        self._make = make
        self._make_near = near
        self._stopping = asyncio.Event()
        self._failure: NodeFailure | None = None
        self._ready = False
        self._cluster_id = ""
        self._door: asyncio.Server | None = None
        self._assemble()
        self.address = ""
        """Where the node listens, as HOST:PORT, once it does."""

    @property
    def name(self) -> str:
        """This node's name in the cluster."""
        return self._registry.node

    @property
    def is_ready(self) -> bool:
        """Whether sessions are served right now."""
        return self._why_unready() is None

    def stop(self) -> None:
        """Have `run` end."""
        self._stopping.set()

    def fail(self, failure: NodeFailure) -> None:
        """Have `run` end with this failure."""
        self._failure = self._failure or failure
        self._stopping.set()

    async def run(self) -> None:
        """Serve until `stop`.

        Raises:
            NodeFailure: if the address cannot be bound, or the node cannot go on.
        """
        logs.bind_node(lambda: self.name)
        async with asyncio.TaskGroup() as tasks:
            runner = web.AppRunner(self._app, access_log=None, handle_signals=False, shutdown_timeout=_GOODBYE_SECONDS)
            running = [
                tasks.create_task(self._client.serve()),
                tasks.create_task(self._broker.serve(self._heart)),
                tasks.create_task(self._fanout.serve()),
            ]
            if self._near is not None:
                running.append(tasks.create_task(self._near.serve(self._broker.drop)))
            try:
                await self._listen(runner)
                if await self._join():
                    running.append(tasks.create_task(self._inbox.serve(self._sessions.handle)))
                    running.append(tasks.create_task(self._heart.serve()))
                    self._ready = True
                    log.info("conclave server listening", addr=self.address, cluster=self._cluster_id)
                    await self._stopping.wait()
                    log.info("shutdown signal received; draining connections")
                self._ready = False
                await self._drain()
            finally:
                await runner.cleanup()
                for task in running:
                    task.cancel()
        if self._failure is not None:
            raise self._failure

    def _assemble(self) -> None:
        config = self._config
        keys = Keys(config.key_prefix)
        self._metrics = metrics = Metrics()
        self._sessions = Sessions()
        self._client = client = RedisClient(self._make, timeout=config.redis_timeout)
        self._registry = Registry(client, keys)
        self._near = near = self._nearby(client, keys)
        self._broker = Broker(near or client, confirm_timeout=config.redis_timeout)
        self._inbox = Inbox(client, keys)
        self._directory = Directory(client, keys)
        leases = Leases(client, keys)
        kept = config.retention
        channel_log = NearLog(client, keys, kept, near) if near is not None else ChannelLog(client, keys, kept)
        self._fanout = fanout = FanOut(
            broker=self._broker, directory=self._directory, channel_log=channel_log, keys=keys, metrics=metrics
        )
        dues = Dues(directory=self._directory, channel_log=channel_log, inbox=self._inbox, registry=self._registry)
        presence = Presence(
            sessions=self._sessions,
            leases=leases,
            directory=self._directory,
            channel_log=channel_log,
            fanout=fanout,
            inbox=self._inbox,
            registry=self._registry,
            policy=config.presence,
        )
        services = Services(
            accounts=Accounts(
                directory=self._directory, dues=dues, admins=config.admins, registration=config.registration
            ),
            rule=Rule(directory=self._directory, fanout=fanout, dues=dues),
            channels=Channels(
                directory=self._directory, channel_log=channel_log, fanout=fanout, registry=self._registry
            ),
            messages=Messages(
                directory=self._directory,
                channel_log=channel_log,
                fanout=fanout,
                leases=leases,
                inbox=self._inbox,
                promises=Promises(client, keys),
                registry=self._registry,
                max_bytes=config.max_message_bytes,
            ),
            presence=presence,
        )
        self._heart = Heart(
            client=client,
            keys=keys,
            registry=self._registry,
            broker=self._broker,
            inbox=self._inbox,
            fanout=fanout,
            dues=dues,
            presence=presence,
            sessions=self._sessions,
            idle_seconds=config.idle_seconds,
        )
        self._connections = connections = Connections(
            services=services,
            dialects=(
                DialectV1(),
                DialectV2(
                    origins=config.origins, idle_seconds=config.idle_seconds, message_bytes=config.max_message_bytes
                ),
            ),
            flusher=Flusher(),
            metrics=metrics,
            outbox_bytes=config.outbox_bytes,
            handshake_seconds=config.handshake_seconds,
        )
        metrics.gauge("conclave_sessions", "Sessions on this node.", lambda: len(self._sessions))
        metrics.gauge("conclave_channels", "Channels that this node delivers.", lambda: len(fanout))
        self._app = make_app(
            serve=lambda request: connections.serve(request, self._cluster_id, self._registry.node),
            why_unready=self._why_unready,
            metrics=metrics.render,
        )

    def _nearby(self, client: RedisClient, keys: Keys) -> Near | None:
        if self._make_near is None:
            return None
        replica = RedisClient(self._make_near, timeout=self._config.redis_timeout, server="replica")
        return Near(client, replica, keys, self._registry)

    def _why_unready(self) -> str | None:
        if self._stopping.is_set():
            return "shutting down"
        if not self._client.is_up or not self._broker.is_connected:
            return "Redis is not reachable"
        if not self._ready:
            return "starting"
        return None

    async def _listen(self, runner: web.AppRunner) -> None:
        await runner.setup()
        serve = runner.server
        assert serve is not None  # noqa: S101 - setup made it
        host, port = self._config.host, self._config.port
        loop = asyncio.get_running_loop()
        try:
            self._door = await loop.create_server(lambda: Doorman(serve()), host, port, backlog=_BACKLOG)
        except OSError as error:
            raise NodeFailure(f"failed to bind `{host}:{port}`: {error.strerror or error}") from error
        host, port = self._door.sockets[0].getsockname()[:2]
        self.address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    async def _join(self) -> bool:
        """Enter the cluster as soon as Redis lets us; False if the node is stopped before that."""
        for warner in self._config.admins.unpinned:
            log.warning("admin is not pinned to a key: whoever registers the name first has the role", admin=warner)
        while not self._stopping.is_set():
            try:
                self._cluster_id = await self._directory.cluster_id()
                await self._heart.join()
            except StoreUnavailable as error:
                log.warning("node.waiting", reason=error.why)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_START_RETRY_SECONDS):
                        await self._stopping.wait()
                continue
            self._client.on_up(self._revive)
            return True
        return False

    async def _revive(self) -> None:
        cluster = await self._directory.cluster_id()
        if cluster != self._cluster_id:
            self.fail(
                NodeFailure(
                    f"Redis now holds cluster `{cluster}` instead of `{self._cluster_id}`: "
                    "the node ends, so that its clients do not talk to the wrong one"
                )
            )
            return
        await self._heart.revive()

    async def _drain(self) -> None:
        """Stop accepting, close every session with its reason, leave the cluster."""
        if self._door is not None:
            self._door.close()
        self._connections.turn_away()
        self._sessions.close_all(CloseReason.SHUTDOWN)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_GOODBYE_SECONDS):
                await self._sessions.empty()
        with contextlib.suppress(StoreUnavailable):
            await self._registry.leave()
