"""The message that a node publishes to itself: it measures live delivery, and its absence shows a dead subscription."""

import asyncio
import time

from relay.observability.metrics import Metrics
from relay.redis.broker import Topics
from relay.redis.keys import Keys
from relay.redis.node_registry import DEAD_AFTER_SECONDS
from relay.redis.store import Store


class ProbeMeter:
    """Measures the time that probes take, and counts those that do not arrive. No I/O."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._number = 0
        self._pending: tuple[bytes, float] | None = None

    def send(self, now: float) -> str:
        """Return the probe to publish. An earlier one that has not arrived counts as missed."""
        if self._pending is not None:
            self._metrics.probes_missed.inc()
        self._number += 1
        text = str(self._number)
        self._pending = text.encode(), now
        return text

    def receive(self, data: bytes, now: float) -> None:
        """Take a probe that arrived. One that was counted as missed is not measured."""
        if self._pending is not None and data == self._pending[0]:
            self._metrics.pubsub_lag.observe(now - self._pending[1])
            self._pending = None

    def forget(self) -> None:
        """Expect no probe: the pending one was published to another topic."""
        self._pending = None


class Probe:
    """Publishes probes to the node's own topic and has a connection replaced on which they do not arrive."""

    def __init__(self, *, client: Store, keys: Keys, broker: Topics, metrics: Metrics) -> None:
        self._client = client
        self._keys = keys
        self._broker = broker
        self._meter = ProbeMeter(metrics)
        self._topic = ""
        self._received_at = 0.0
        broker.on_resubscribed(lambda _: self._restart_timeout())

    async def subscribe(self, node: str) -> None:
        """Use the topic of this node from now on, instead of an earlier one. Raises: StoreUnavailable."""
        former, self._topic = self._topic, self._keys.probe(node)
        self._meter.forget()
        await self._broker.subscribe(self._topic, self._receive)
        self._restart_timeout()
        if former:
            self._broker.unsubscribe(former)

    async def send(self) -> None:
        """Publish a probe. Raises: StoreUnavailable."""
        await self._client.call("PUBLISH", self._topic, self._meter.send(time.monotonic()))

    def check(self) -> None:
        """Have the subscriber connection replaced if no probe has arrived for six seconds, whatever TCP says."""
        silent_seconds = asyncio.get_running_loop().time() - self._received_at
        if self._broker.is_connected and silent_seconds > DEAD_AFTER_SECONDS:
            self._restart_timeout()
            self._broker.drop("deaf: does not hear this node's own probe")

    def _receive(self, data: bytes) -> None:
        self._meter.receive(data, time.monotonic())
        self._restart_timeout()

    def _restart_timeout(self) -> None:
        self._received_at = asyncio.get_running_loop().time()
