"""Regular cleaning up: dead nodes, pending announcements, idle channels and idle sessions."""

import asyncio

from relay.channels.fanout import FanOut
from relay.cluster.announcements import Announcements
from relay.observability.metrics import Metrics
from relay.redis.node_registry import NodeRegistry
from relay.sessions.registry import SessionRegistry


class Janitor:
    """Cleans up after this node and after dead ones. Each step may be repeated, and resumes where it failed."""

    def __init__(
        self,
        *,
        registry: NodeRegistry,
        announcements: Announcements,
        fanout: FanOut,
        sessions: SessionRegistry,
        idle_seconds: float,
        metrics: Metrics,
    ) -> None:
        """A session that sends nothing for `idle_seconds` is closed."""
        self._registry = registry
        self._announcements = announcements
        self._fanout = fanout
        self._sessions = sessions
        self._idle_seconds = idle_seconds
        self._metrics = metrics

    def close_idle_sessions(self) -> None:
        """Close the sessions of this node that have been idle for too long."""
        self._sessions.close_idle(asyncio.get_running_loop().time(), self._idle_seconds)

    async def run(self) -> None:
        """Clean up once in Redis. Raises: StoreUnavailable."""
        for node in self._registry.dead():
            if await self._registry.remove_dead(node):
                self._metrics.janitor_removed.inc()
        await self._announcements.publish_pending()
        await self._fanout.unsubscribe_idle(self._registry.node)
        self._metrics.janitor_runs.inc()
