"""What a node does in regular beats: show that it lives, judge the others, find out that it has gone deaf, tidy up."""

import asyncio
import time

import structlog

from relay.channels.fanout import FanOut
from relay.cluster.announcements import Announcements
from relay.cluster.probe import Probe
from relay.model.errors import StoreUnavailable
from relay.observability.metrics import Metrics
from relay.redis.broker import Broker
from relay.redis.client import RedisClient
from relay.redis.inbox import Inbox
from relay.redis.keys import Keys
from relay.redis.node_registry import BEAT_SECONDS, DEAD_AFTER_SECONDS, NodeRegistry
from relay.services.presence import Presence
from relay.sessions.registry import SessionRegistry

log = structlog.get_logger()


class Membership:
    """The node's membership in the cluster; also the listener of the broker, for the sake of its own probe."""

    def __init__(
        self,
        *,
        client: RedisClient,
        keys: Keys,
        registry: NodeRegistry,
        broker: Broker,
        inbox: Inbox,
        fanout: FanOut,
        announcements: Announcements,
        presence: Presence,
        sessions: SessionRegistry,
        idle_seconds: float,
        metrics: Metrics,
    ) -> None:
        self._client = client
        self._keys = keys
        self._registry = registry
        self._broker = broker
        self._inbox = inbox
        self._fanout = fanout
        self._announcements = announcements
        self._presence = presence
        self._sessions = sessions
        self._idle_seconds = idle_seconds
        self._metrics = metrics
        self._probe = Probe(metrics)
        self._topic = ""
        self._probe_heard = 0.0

    async def join(self) -> None:
        """Enter the cluster under a new name and listen to what concerns it. Raises: StoreUnavailable."""
        before = self._registry.node
        await self._registry.join()
        old, self._topic = self._topic, self._keys.probe(self._registry.node)
        self._probe.forget()
        await self._inbox.switch_to(self._registry.node)
        await self._broker.subscribe(self._topic)
        self._probe_heard = asyncio.get_running_loop().time()
        if old:
            await self._broker.unsubscribe(old)
            await self._presence.reassert()
            await self._registry.remove(before)
        log.info("node.joined", node=self._registry.node)

    async def revive(self) -> None:
        """Take up where the node was before Redis went away. Raises: StoreUnavailable."""
        self._registry.restart_timeouts()
        if await self._registry.beat():
            await self._presence.reassert()
        else:
            await self.join()

    async def serve(self) -> None:
        """Beat until cancelled."""
        while True:
            await asyncio.sleep(BEAT_SECONDS)
            self._sessions.reap(asyncio.get_running_loop().time(), self._idle_seconds)
            try:
                await self._beat()
            except StoreUnavailable as error:
                log.debug("heart.skipped", error=error.why)

    async def _beat(self) -> None:
        if not await self._registry.beat():
            log.warning("node.evicted", node=self._registry.node)
            await self.join()
        await self._client.call("PUBLISH", self._topic, self._probe.send(time.monotonic()))
        self._listen_to_silence()
        for node in self._registry.dead():
            if await self._registry.remove_dead(node):
                self._metrics.janitor_removed.inc()
        await self._announcements.publish_pending()
        await self._inbox.trim()
        await self._fanout.unsubscribe_idle(self._registry.node)
        self._metrics.janitor_runs.inc()

    def _listen_to_silence(self) -> None:
        """A subscriber connection that does not hear this node's own probe is deaf, whatever TCP says."""
        now = asyncio.get_running_loop().time()
        if self._broker.is_connected and now - self._probe_heard > DEAD_AFTER_SECONDS:
            self._probe_heard = now
            self._broker.drop("deaf: does not hear this node's own probe")

    def heard(self, topic: str, data: bytes) -> None:
        if topic == self._topic:
            self._probe.heard(data, time.monotonic())
            self._probe_heard = asyncio.get_running_loop().time()
        else:
            self._fanout.heard(topic, data)

    def caught_up(self) -> None:
        self._probe_heard = asyncio.get_running_loop().time()
        self._fanout.caught_up()
