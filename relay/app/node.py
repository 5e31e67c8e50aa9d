"""One node: started, ready or not, and taken down."""

import asyncio
import contextlib
import socket
from collections.abc import Sequence
from typing import Any

import structlog
from aiohttp import web

from relay.app.config import NodeConfig
from relay.app.drain import close_evenly
from relay.app.shutdown import Shutdown
from relay.app.wiring import Components
from relay.model.close_reason import CloseReason
from relay.model.errors import NodeFailure, StoreUnavailable, not_bound
from relay.observability import logs
from relay.observability.event_loop_lag import watch_lag
from relay.observability.metrics import Family, Metrics
from relay.redis.connect import Make
from relay.transport.http import STATUS_GOODBYE_SECONDS, Status, address_text, make_app, open_status_port
from relay.transport.pre_login import PreLoginLimiter

log = structlog.get_logger()

_GOODBYE_SECONDS = 4.0
"""How long sessions that were told may take to end, and then their connections: together less than whoever stops a node
gives it beyond the drain (docs/operations.md)."""
_START_RETRY_SECONDS = 0.5
_WAITING_SECONDS = 30.0
"""How often a node that waits for Redis says so, as long as the reason is the same."""
_BACKLOG = 1024


class Node:
    """A relay node: serves sessions from `start` to `stop`; everything that outlives it is in Redis."""

    def __init__(
        self,
        config: NodeConfig,
        make: Make,
        near: Make | None = None,
        *,
        sockets: Sequence[socket.socket] = (),
        status: Status | None = None,
    ) -> None:
        """`make` builds redis-py clients for the cluster's Redis, `near` for a replica of it.

        A node that is one of several processes behind a port is given the bound `sockets` to listen on, and the
        `status` of all of them to tell whoever asks.
        """
        self._sockets = sockets
        self._status = status or self
        self._config = config
        self._stop = Shutdown()
        self._failure: NodeFailure | None = None
        self._ready = False
        self._closed = False
        self._cluster_id = ""
        self._doors: list[asyncio.Server] = []
        self.parts = Components(config, make, near)
        """What it is made of, for tests that reach inside."""
        self._show_state(self.parts.metrics)
        self._app = make_app(
            serve=lambda request: self.parts.connections.serve(request, self._cluster_id, self.name),
            why_closed=lambda: self.closed,
            status=self._status,
            metrics=config.metrics_address is None,
        )
        self.address = ""
        """Where the node listens, as HOST:PORT, once it does."""
        self.status_address = ""
        """The same for metrics that have a port of their own."""
        self.listening = asyncio.Event()
        """Set once it takes connections, ready or not."""
        self.ready = asyncio.Event()
        """Set once it has served sessions for the first time."""

    @property
    def name(self) -> str:
        """This node's name in the cluster."""
        return self.parts.registry.node

    @property
    def is_ready(self) -> bool:
        """Whether sessions are served right now."""
        return self.unready is None

    async def why_unready(self) -> str | None:
        """Return why sessions are not served right now, or None."""
        return self.unready

    async def metrics(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return self.parts.metrics.render()

    def families(self) -> list[Family]:
        """Return all metrics as they stand."""
        return self.parts.metrics.families()

    def stop(self) -> None:
        """Have `run` end after a drain; the second time at once."""
        self._stop.ask()

    def hurry(self) -> None:
        """Have `run` end without a drain: all sessions are told at once."""
        self._stop.hurry()

    def fail(self, failure: NodeFailure) -> None:
        """Have `run` end with this failure, without a drain."""
        self._failure = self._failure or failure
        self._stop.hurry()

    async def run(self) -> None:
        """Serve until `stop`.

        Raises:
            NodeFailure: if the address cannot be bound, or the node cannot go on.
        """
        logs.bind_node(lambda: self.name)
        async with asyncio.TaskGroup() as tasks:
            runner = web.AppRunner(self._app, access_log=None, handle_signals=False, shutdown_timeout=_GOODBYE_SECONDS)
            running = [
                tasks.create_task(self.parts.client.serve()),
                tasks.create_task(self.parts.broker.serve(self.parts.membership)),
                tasks.create_task(self.parts.fanout.serve()),
                tasks.create_task(watch_lag(self.parts.metrics.event_loop_lag)),
            ]
            if self.parts.near is not None:
                running.append(tasks.create_task(self.parts.near.serve(self.parts.broker.drop)))
            aside: web.AppRunner | None = None
            try:
                aside = await self._open_status_port()
                await self._listen(runner)
                if await self._join():
                    running.append(tasks.create_task(self.parts.inbox.serve(self.parts.sessions.handle)))
                    beating = tasks.create_task(self.parts.membership.serve())
                    self._ready = True
                    self.ready.set()
                    ready = "worker.ready" if self._sockets else "conclave server listening"
                    log.info(ready, addr=self.address, cluster=self._cluster_id)
                    await self._stop.asked.wait()
                    await self._drain()
                    beating.cancel()  # else it finds the node gone from the registry, and enters it again
                    await asyncio.wait((beating,))
                await self._close()
            finally:
                self._turn_away()  # also after a failure, which comes here at once
                self.parts.sessions.close_all(CloseReason.SHUTDOWN)
                await self._stop.wait_for(runner.cleanup(), 2 * _GOODBYE_SECONDS)
                if aside is not None:
                    await self._stop.wait_for(aside.cleanup(), STATUS_GOODBYE_SECONDS)
                for task in running:
                    task.cancel()
        if self._failure is not None:
            raise self._failure

    def _show_state(self, metrics: Metrics) -> None:
        """Have the gauges ask for what they show when somebody looks at them."""
        metrics.ready.set_function(lambda: self.is_ready)
        metrics.draining.set_function(self._stop.asked.is_set)
        metrics.redis_up.set_function(lambda: self.parts.client.is_up)
        metrics.nodes.set_function(lambda: self.parts.registry.size)
        metrics.sessions.set_function(lambda: len(self.parts.sessions))
        metrics.channels.set_function(lambda: len(self.parts.fanout))
        metrics.subscriptions.set_function(lambda: self.parts.fanout.subscriptions)
        metrics.outbox_bytes.set_function(lambda: sum(session.outbox.buffered for session in self.parts.sessions))

    @property
    def unready(self) -> str | None:
        """Why sessions are not served right now, or None."""
        return "shutting down" if self._stop.asked.is_set() else self.closed

    @property
    def closed(self) -> str | None:
        """Why nobody can come in right now, or None: a node that drains first goes on serving whoever comes."""
        if self._closed:
            return "shutting down"
        if not self.parts.client.is_up or not self.parts.broker.is_connected:
            return "Redis is not reachable"
        if not self._ready:
            return "starting"
        return None

    async def _listen(self, runner: web.AppRunner) -> None:
        await runner.setup()
        serve = runner.server
        assert serve is not None  # noqa: S101 - setup made it
        host, port = self._config.host, self._config.port
        where: list[dict[str, Any]] = [{"sock": each} for each in self._sockets] or [{"host": host, "port": port}]
        loop = asyncio.get_running_loop()
        try:
            for each in where:
                self._doors.append(await loop.create_server(lambda: PreLoginLimiter(serve()), **each, backlog=_BACKLOG))
        except OSError as error:
            raise not_bound(host, port, error) from error
        self.address = address_text(self._doors[0].sockets[0].getsockname())
        self.listening.set()

    async def _open_status_port(self) -> web.AppRunner | None:
        """Open the port of the metrics, if they have one and this is the process to do it."""
        if self._config.metrics_address is None or self._sockets:
            return None
        try:
            runner, self.status_address = await open_status_port(self, *self._config.metrics_address)
        except OSError as error:
            raise not_bound(*self._config.metrics_address, error) from error
        log.info("metrics listening", addr=self.status_address)
        return runner

    async def _join(self) -> bool:
        """Enter the cluster as soon as Redis lets us; False if the node is stopped before that."""
        for warner in self._config.admins.unpinned:
            log.warning("admin is not pinned to a key: whoever registers the name first has the role", admin=warner)
        clock = asyncio.get_running_loop().time
        said, due = "", 0.0
        while not self._stop.asked.is_set():
            try:
                self._cluster_id = await self.parts.directory.cluster_id()
                await self.parts.membership.join()
            except StoreUnavailable as error:
                if error.why != said or clock() >= due:
                    said, due = error.why, clock() + _WAITING_SECONDS
                    log.warning("node.waiting", reason=said)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_START_RETRY_SECONDS):
                        await self._stop.asked.wait()
                continue
            self.parts.client.on_up(self._revive)
            return True
        return False

    async def _revive(self) -> None:
        cluster = await self.parts.directory.cluster_id()
        if cluster != self._cluster_id:
            self.fail(
                NodeFailure(
                    f"Redis now holds cluster `{cluster}` instead of `{self._cluster_id}`: "
                    "the node ends, so that its clients do not talk to the wrong one"
                )
            )
            return
        await self.parts.membership.revive()

    async def _drain(self) -> None:
        """Be unready and go on serving until balancers know; then take nobody in and tell one session after another."""
        delay, seconds = self._config.drain_delay, self._config.drain_seconds
        log.info("shutdown signal received; draining connections", sessions=len(self.parts.sessions), after=delay)
        await self._stop.pause(delay)
        self._turn_away()
        await close_evenly(self.parts.sessions, seconds, self._stop)

    def _turn_away(self) -> None:
        self._closed = True
        for door in self._doors:
            door.close()
        self.parts.connections.turn_away()

    async def _close(self) -> None:
        """Close whoever is left, with the reason, and leave the cluster."""
        self._turn_away()
        self.parts.sessions.close_all(CloseReason.SHUTDOWN)
        await self._stop.wait_for(self.parts.sessions.empty(), _GOODBYE_SECONDS)
        if len(self.parts.sessions):
            log.warning("node.sessions_cut", sessions=len(self.parts.sessions))
        with contextlib.suppress(StoreUnavailable):
            await self.parts.registry.leave()
