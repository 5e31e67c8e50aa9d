"""What time it is in Redis, as this node sees it.

The age of a message is a difference between Redis' clock, which stamped it, and the present. The node's own clock may
differ by more than that age, so it is not asked: Redis says its time with every heartbeat, and the node counts on from
there with a clock that nobody sets. Of the last answers the quickest counts; it is wrong by half its way at most.
"""

from collections import deque

_ANSWERS = 8


class RedisClock:
    """Redis' clock, continued from its last answers."""

    def __init__(self) -> None:
        self._answers: deque[tuple[float, float]] = deque(maxlen=_ANSWERS)
        self._offset: float | None = None

    def record(self, redis_ms: int, asked: float, answered: float) -> None:
        """Take Redis' time in milliseconds; the other two are `time.monotonic` before and after, in seconds."""
        self._answers.append((answered - asked, redis_ms / 1000 - (asked + answered) / 2))
        self._offset = min(self._answers)[1]

    def forget(self) -> None:
        """Trust no earlier answer: it may be another Redis now."""
        self._answers.clear()

    def age(self, redis_ms: int, now: float) -> float | None:
        """Return how long before `now` (`time.monotonic`) that was, in seconds and never negative.

        None before Redis was asked. An id may be ahead of the clock, and so may an estimate.
        """
        if self._offset is None:
            return None
        age = now + self._offset - redis_ms / 1000
        return age if age > 0 else 0.0
