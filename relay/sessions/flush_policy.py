"""The time of the next flush, by how long the flushes take. No I/O.

A flush writes to one socket after the other, so its duration is the load that writes are. The next one follows after a
multiple of that duration. So an idle node flushes at the end of each tick, and frames of a busy one gather, the longer
the more listeners it has. The share of its time that a node spends on flushes has a bound.
"""

_FACTOR = 4
"""The time from a flush to the next one, in durations of the first: flushes take a fifth of the time at most."""


class FlushPolicy:
    """Chooses how long frames gather. All times are in seconds, by one monotonic clock."""

    def __init__(self, max_gather: float) -> None:
        """`max_gather` bounds the time for which a frame waits; 0 has every tick flush."""
        self._max_gather = max_gather
        self._next = 0.0

    def delay(self, now: float) -> float:
        """Return how long a frame that is there `now` waits for the flush: 0 if that is at the end of the tick."""
        return max(0.0, self._next - now)

    def record(self, began: float, ended: float) -> None:
        """Record a flush."""
        self._next = ended + min(self._max_gather, _FACTOR * (ended - began))
