"""The message that a node sends itself through Redis, to know that it still hears. Pure."""

from relay.observability.metrics import Metrics


class Probe:
    """Measures the way through Redis and counts the probes that do not come back."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._number = 0
        self._under_way: tuple[bytes, float] | None = None

    def send(self, now: float) -> str:
        """Return what to publish next. What is still under way is missed."""
        if self._under_way is not None:
            self._metrics.probes_missed.inc()
        self._number += 1
        text = str(self._number)
        self._under_way = text.encode(), now
        return text

    def heard(self, data: bytes, now: float) -> None:
        """Take what was heard on this node's own topic. A probe that was given up already says nothing new."""
        if self._under_way is not None and data == self._under_way[0]:
            self._metrics.pubsub_lag.observe(now - self._under_way[1])
            self._under_way = None

    def forget(self) -> None:
        """Wait no more for what is under way: it was for another topic."""
        self._under_way = None
