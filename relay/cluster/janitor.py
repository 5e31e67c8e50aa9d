"""Regular cleaning up: dead nodes, pending announcements, idle channels and idle sessions."""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from relay.channels.fanout import FanOut
from relay.cluster.announcements import Announcements
from relay.cluster.session_records import SessionRecords
from relay.model.errors import StoreUnavailable
from relay.observability.metrics import Metrics
from relay.redis.dead_nodes import DeadNodes
from relay.redis.node_registry import BEAT_SECONDS, NodeRegistry
from relay.sessions.registry import SessionRegistry

log = structlog.get_logger()

_LOOK_SECONDS = 0.25
"""The interval of the looks for dead nodes, which cost nothing while there are none."""


class Janitor:
    """Cleans up after this node and after dead ones. Each chore may be repeated, and resumes where it failed.

    The chores run beside each other, each in a task: none waits for a long one.
    """

    def __init__(
        self,
        *,
        registry: NodeRegistry,
        dead_nodes: DeadNodes,
        announcements: Announcements,
        fanout: FanOut,
        sessions: SessionRegistry,
        records: SessionRecords,
        idle_seconds: float,
        metrics: Metrics,
    ) -> None:
        """A session that sends nothing for `idle_seconds` is closed."""
        self._registry = registry
        self._dead_nodes = dead_nodes
        self._announcements = announcements
        self._fanout = fanout
        self._sessions = sessions
        self._records = records
        self._idle_seconds = idle_seconds
        self._metrics = metrics
        self._looked_at: float | None = None
        """The time of the last look for idle sessions."""
        self._chores: dict[Callable[[], Awaitable[None]], float] = {
            self.remove_dead_nodes: _LOOK_SECONDS,
            self.announce: BEAT_SECONDS,
            self.unsubscribe: BEAT_SECONDS,
            self.settle_records: BEAT_SECONDS,
            self.close_idle_sessions: BEAT_SECONDS,
        }

    async def serve(self) -> None:
        """Do every chore at least every two seconds, until cancelled. One that Redis refuses is tried again."""
        async with asyncio.TaskGroup() as tasks:
            for chore, pause in self._chores.items():
                tasks.create_task(self._repeat(chore, pause))

    async def _repeat(self, chore: Callable[[], Awaitable[None]], pause: float) -> None:
        while True:
            await asyncio.sleep(pause)
            try:
                await chore()
            except StoreUnavailable as error:
                log.debug("janitor.interrupted", chore=chore.__name__, error=error.why)

    async def remove_dead_nodes(self) -> None:
        """Remove what dead nodes left in Redis. Raises: StoreUnavailable."""
        for node, beat in self._registry.dead().items():
            if await self._dead_nodes.remove(node, beat):
                self._metrics.janitor_removed.inc()

    async def announce(self) -> None:
        """Make the announcements that other nodes have left. Raises: StoreUnavailable."""
        await self._announcements.publish_pending()
        self._metrics.janitor_runs.inc()

    async def unsubscribe(self) -> None:
        """Unsubscribe from the channels that no session is in any more. Raises: StoreUnavailable."""
        await self._fanout.unsubscribe_idle(self._registry.node)

    async def settle_records(self) -> None:
        """Remove stray records, and write and remove what is pending of the sessions. Raises: StoreUnavailable."""
        await self._records.find_strays()
        await self._records.settle()

    async def close_idle_sessions(self) -> None:
        """Close the sessions of this node that have been idle for too long, by the time for which the node ran."""
        now = asyncio.get_running_loop().time()
        looked_at, self._looked_at = self._looked_at or now, now
        self._sessions.close_idle(now, self._idle_seconds, held_up=max(0.0, now - looked_at - BEAT_SECONDS))
