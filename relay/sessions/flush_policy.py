"""The time of the next flush, by how long the flushes take and what they join. No I/O.

A flush writes to one socket after the other, so its duration is the load that writes are. While it runs, events arrive,
and the next flush joins them. If it joined several events of a session, they come faster than they are written, and the
one after it waits, for a multiple of its duration: it joins more. Otherwise nothing would be gained, so nothing waits.
"""

_FACTOR = 4
"""The time from a flush to the next one, in durations of the first: flushes take a fifth of the time then."""
_JOINED = 2
"""The frames per write from which on waiting pays off."""


class FlushPolicy:
    """Chooses how long frames gather. All times are in seconds, by one monotonic clock."""

    def __init__(self, max_gather: float) -> None:
        """`max_gather` bounds the time for which a frame waits; 0 has every tick flush."""
        self._max_gather = max_gather
        self._next = 0.0

    def delay(self, now: float) -> float:
        """Return how long a frame that is there `now` waits for the flush: 0 if that is at the end of the tick."""
        return max(0.0, self._next - now)

    def record(self, began: float, ended: float, *, frames: int, writes: int) -> None:
        """Record a flush that has written so many frames in so many writes."""
        wait = min(self._max_gather, _FACTOR * (ended - began)) if frames >= _JOINED * writes else 0.0
        self._next = ended + wait
