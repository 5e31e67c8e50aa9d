"""One node: its start, its readiness and its end."""

import asyncio
import contextlib
import socket
from collections.abc import Sequence

import structlog
from aiohttp import web

from relay.app.client_port import ClientPort
from relay.app.config import NodeConfig
from relay.app.drain import close_evenly
from relay.app.shutdown import Shutdown
from relay.app.wiring import Components
from relay.model.close_reason import CloseReason
from relay.model.errors import NodeFailure, StoreUnavailable, bind_failure
from relay.observability import logs
from relay.observability.event_loop_lag import watch_lag
from relay.observability.metrics import Metrics
from relay.redis.connect import Make, Members
from relay.transport.http import STATUS_GOODBYE_SECONDS, Status, make_app, open_status_port

log = structlog.get_logger()

_CLOSE_SECONDS = 4.0
"""The time that sessions have to end after they were told to close, and then their connections: together less than a
process manager gives a node beyond its drain (docs/operations.md)."""
_START_RETRY_SECONDS = 0.5
_WAITING_LOG_SECONDS = 30.0
"""The interval of a waiting node's log entries, as long as the reason is the same."""


class Node:
    """A relay node. `run` serves sessions until `stop`; all state that outlives the node is in Redis."""

    def __init__(
        self,
        config: NodeConfig,
        make: Make | Members,
        make_replica: Make | None = None,
        *,
        sockets: Sequence[socket.socket] = (),
        status: Status | None = None,
    ) -> None:
        """`make` builds redis-py clients for the store, which may be a Redis Cluster, and `make_replica` for a replica.

        A worker, which is one of several processes behind a port, is given the bound `sockets` to listen on and the
        `status` of all workers to serve at /ready and /metrics.
        """
        self._config = config
        self._is_worker = bool(sockets)
        self._shutdown = Shutdown()
        self._failure: NodeFailure | None = None
        self._joined = False
        self._closed = False
        self._cluster_id = ""
        self.parts = Components(config, make, make_replica)
        """The node's components, for tests that reach inside."""
        self.parts.cluster.on_other(self._lose_cluster)
        self._connect_gauges(self.parts.metrics)
        app = make_app(
            serve=lambda request: self.parts.connections.serve(request, self._cluster_id, self.name),
            why_closed=lambda: self.closed_reason,
            status=status or self,
            metrics=config.metrics_address is None,
        )
        self._client_port = ClientPort(app, config.host, config.port, sockets)
        self.address = ""
        """The address that the node listens at, as HOST:PORT, once it does."""
        self.status_address = ""
        """The address of the metrics' own port, if there is one."""
        self.listening = asyncio.Event()
        """Set once the node accepts connections, ready or not."""
        self.ready = asyncio.Event()
        """Set once the node has served sessions for the first time."""

    @property
    def name(self) -> str:
        """The node's name in the cluster; a node that was evicted gets a new one."""
        return self.parts.registry.node

    @property
    def is_ready(self) -> bool:
        return self.unready_reason is None

    @property
    def unready_reason(self) -> str | None:
        """The reason why balancers should not send sessions here now, or None."""
        return "shutting down" if self._shutdown.requested.is_set() else self.closed_reason

    @property
    def closed_reason(self) -> str | None:
        """The reason why new sessions are refused now, or None. A draining node accepts sessions for a while."""
        if self._closed:
            return "shutting down"
        if not self.parts.client.is_up or not self.parts.broker.is_connected:
            refusal = self.parts.client.refusal
            return "Redis is not reachable" if refusal is None else f"Redis refuses commands: {refusal}"
        if not self._joined:
            return "starting"
        return self.parts.registry.unaccepted or self.parts.membership.state.value or None

    async def why_unready(self) -> str | None:
        """Return `unready_reason`."""
        return self.unready_reason

    async def metrics(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return self.parts.metrics.render()

    def stop(self) -> None:
        """Have `run` end after a drain; the second call ends it without one."""
        self._shutdown.request()

    def force_stop(self) -> None:
        """Have `run` end without a drain: all sessions are closed now."""
        self._shutdown.force()

    def fail(self, failure: NodeFailure) -> None:
        """Have `run` raise this failure, without a drain. The first failure counts."""
        self._failure = self._failure or failure
        self._shutdown.force()

    async def run(self) -> None:
        """Serve until `stop`.

        Raises:
            NodeFailure: if the address cannot be bound, or the node cannot go on.
        """
        logs.bind_node(lambda: self.name)
        async with asyncio.TaskGroup() as tasks:
            background = self._start_background(tasks)
            status_port: web.AppRunner | None = None
            try:
                status_port = await self._open_status_port()
                self.address = await self._client_port.listen(shutdown_timeout=_CLOSE_SECONDS)
                self.listening.set()
                if await self._join_cluster():
                    await self._serve_sessions(tasks, background)
                await self._leave_cluster()
            finally:
                self._refuse_sessions()  # also after a failure, which skips the drain
                self.parts.sessions.close_all(CloseReason.SHUTDOWN)
                await self._shutdown.wait_for(self._close_connections(), 2 * _CLOSE_SECONDS)
                if status_port is not None:
                    await self._shutdown.wait_for(status_port.cleanup(), STATUS_GOODBYE_SECONDS)
                for task in background:
                    task.cancel()
        if self._failure is not None:
            raise self._failure

    # --- Start ---

    def _start_background(self, tasks: asyncio.TaskGroup) -> list[asyncio.Task[None]]:
        """Start the tasks that run for as long as the node does."""
        background = [
            tasks.create_task(self.parts.client.serve()),
            tasks.create_task(self.parts.broker.serve()),
            tasks.create_task(self.parts.fanout.serve()),
            tasks.create_task(self.parts.store_checks.serve()),
            tasks.create_task(watch_lag(self.parts.metrics.event_loop_lag)),
        ]
        if self.parts.replica is not None:
            background.append(tasks.create_task(self.parts.replica.serve(self.parts.broker.drop)))
        return background

    def _connect_gauges(self, metrics: Metrics) -> None:
        """Have the gauges read the node's state at each scrape."""
        metrics.ready.set_function(lambda: self.is_ready)
        metrics.draining.set_function(self._shutdown.requested.is_set)
        metrics.redis_up.set_function(lambda: self.parts.client.is_up)
        metrics.redis_masters_away.set_function(lambda: self.parts.client.masters_away)
        metrics.nodes.set_function(lambda: self.parts.registry.size)
        metrics.sessions.set_function(lambda: len(self.parts.sessions))
        metrics.channels.set_function(lambda: len(self.parts.fanout))
        metrics.subscriptions.set_function(lambda: self.parts.fanout.subscriptions)
        metrics.records_pending.set_function(lambda: self.parts.records.pending)
        metrics.outbox_bytes.set_function(lambda: sum(session.outbox.buffered for session in self.parts.sessions))

    async def _open_status_port(self) -> web.AppRunner | None:
        """Open the metrics' own port, if one is configured. For workers, their parent opens it."""
        if self._config.metrics_address is None or self._is_worker:
            return None
        try:
            runner, self.status_address = await open_status_port(self, *self._config.metrics_address)
        except OSError as error:
            raise bind_failure(*self._config.metrics_address, error) from error
        log.info("metrics listening", addr=self.status_address)
        return runner

    async def _join_cluster(self) -> bool:
        """Join the cluster as soon as Redis answers; False if the node is stopped before that."""
        for admin in self._config.admins.unpinned:
            log.warning("admin is not pinned to a key: the first user to register the name has the role", admin=admin)
        clock = asyncio.get_running_loop().time
        logged, log_again_at = "", 0.0
        while not self._shutdown.requested.is_set():
            try:
                await self._find_cluster()
                await self.parts.membership.complete()
            except StoreUnavailable as error:
                if error.why != logged or clock() >= log_again_at:
                    logged, log_again_at = error.why, clock() + _WAITING_LOG_SECONDS
                    log.warning("node.waiting", reason=logged)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_START_RETRY_SECONDS):
                        await self._shutdown.requested.wait()
                continue
            self.parts.client.on_up(self._rejoin_cluster)
            return True
        return False

    async def _find_cluster(self) -> None:
        """Learn the id of the cluster, once: from then on, Redis has to hold it. Raises: StoreUnavailable."""
        if self._cluster_id:
            return
        found = await self.parts.directory.cluster_id()
        if found is None:
            self.fail(_without_id(self.parts.cluster.key))
            raise StoreUnavailable("Redis has users and no cluster id")
        self._cluster_id = self.parts.cluster.expected = found

    def _lose_cluster(self, found: str | None) -> None:
        """End because Redis holds another cluster's data, or none."""
        self.fail(_other_cluster(self._cluster_id, found, self.parts.cluster.key))

    async def _rejoin_cluster(self) -> None:
        """Take up the membership again: Redis was away, and may have lost what this node has told it."""
        self.parts.membership.interrupt()

    # --- Service, and its end ---

    async def _serve_sessions(self, tasks: asyncio.TaskGroup, background: list[asyncio.Task[None]]) -> None:
        """Serve sessions until a shutdown is requested, then drain."""
        signals = self.parts.inbox.serve(self.parts.sessions.handle_signal, self.parts.membership.interrupt)
        background.append(tasks.create_task(signals))
        membership = tasks.create_task(self.parts.membership.serve())
        self._joined = True
        self.ready.set()
        event = "worker.ready" if self._is_worker else "conclave server listening"
        log.info(event, addr=self.address, cluster=self._cluster_id)
        await self._shutdown.requested.wait()
        await self._drain()
        membership.cancel()  # a later beat would find the node gone from the registry, and register it again
        await asyncio.wait((membership,))

    async def _drain(self) -> None:
        """Be unready and keep serving until balancers know; then refuse new sessions and close the others evenly."""
        delay, seconds = self._config.drain_delay, self._config.drain_seconds
        log.info("shutdown signal received; draining connections", sessions=len(self.parts.sessions), after=delay)
        await self._shutdown.pause(delay)
        self._refuse_sessions()
        await close_evenly(self.parts.sessions, seconds, self._shutdown)

    def _refuse_sessions(self) -> None:
        self._closed = True
        self._client_port.stop_listening()
        self.parts.connections.refuse_logins()

    async def _close_connections(self) -> None:
        await self.parts.connections.close(_CLOSE_SECONDS)
        await self._client_port.close()

    async def _leave_cluster(self) -> None:
        """Close the remaining sessions, with the reason, and remove the node from the registry."""
        self._refuse_sessions()
        self.parts.sessions.close_all(CloseReason.SHUTDOWN)
        await self._shutdown.wait_for(self.parts.sessions.wait_until_empty(), _CLOSE_SECONDS)
        if len(self.parts.sessions):
            log.warning("node.sessions_cut", sessions=len(self.parts.sessions))
        with contextlib.suppress(StoreUnavailable):
            await self._shutdown.wait_for(self.parts.membership.leave(), _CLOSE_SECONDS)


def _other_cluster(own: str, found: str | None, key: str) -> NodeFailure:
    if found is not None:
        return NodeFailure(
            f"Redis now holds cluster `{found}` instead of `{own}`: "
            "the node ends, so that its clients do not talk to the wrong one"
        )
    return NodeFailure(
        f"Redis no longer holds cluster `{own}`: it was replaced or emptied, or its key `{key}` was lost. "
        f"If the data is still there, `SET {key} {own} NX` puts the id back; otherwise restore a backup. "
        "The node ends, so that its clients do not talk to another cluster"
    )


def _without_id(key: str) -> NodeFailure:
    return NodeFailure(
        f"Redis has users, but no cluster id: the key `{key}` was deleted or evicted. `SET {key} ID NX` puts it back; "
        "each node has logged the ID at its start, as `cluster`. "
        "The node ends, because with another id clients would not trust it"
    )
