"""A node's membership of the cluster: joining, the heartbeat, the return after an eviction or an outage of Redis."""

import asyncio

import structlog

from relay.cluster.janitor import Janitor
from relay.cluster.probe import Probe
from relay.cluster.session_records import SessionRecords
from relay.model.errors import StoreUnavailable
from relay.redis.inbox import Inbox
from relay.redis.node_registry import BEAT_SECONDS, NodeRegistry

log = structlog.get_logger()


class Membership:
    """Joins the cluster and stays in it. The janitor runs after each heartbeat."""

    def __init__(
        self,
        *,
        registry: NodeRegistry,
        inbox: Inbox,
        probe: Probe,
        janitor: Janitor,
        records: SessionRecords,
    ) -> None:
        self._registry = registry
        self._inbox = inbox
        self._probe = probe
        self._janitor = janitor
        self._records = records

    async def join(self) -> None:
        """Join the cluster; a node that was in it before gets a new name. Raises: StoreUnavailable."""
        former = await self._registry.join()
        await self._inbox.switch_to(self._registry.node)
        await self._probe.subscribe(self._registry.node)
        if former is not None:
            await self._records.reassert()
            await self._inbox.close(former)
            await self._registry.remove(former)
        log.info("node.joined", node=self._registry.node)

    async def revive(self) -> None:
        """Return after an outage of Redis, under the same name if it was not evicted. Raises: StoreUnavailable."""
        self._registry.restart_timeouts()
        if await self._registry.beat():
            await self._records.reassert()
        else:
            await self.join()

    async def serve(self) -> None:
        """Send a heartbeat every two seconds until cancelled. An outage of Redis is waited out."""
        while True:
            await asyncio.sleep(BEAT_SECONDS)
            self._janitor.close_idle_sessions()
            try:
                await self._beat()
            except StoreUnavailable as error:
                log.debug("heart.skipped", error=error.why)

    async def _beat(self) -> None:
        if not await self._registry.beat():
            log.warning("node.evicted", node=self._registry.node)
            await self.join()
        await self._probe.send()
        self._probe.check()
        await self._janitor.run()
