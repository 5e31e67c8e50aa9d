"""Redis' clock, as this node estimates it.

The age of a message is the difference between its time, by Redis' clock, and the present. The node's own wall clock may
be wrong by more than that. So each heartbeat returns Redis' time, and the node adds the monotonic time that has passed
since. Of the last replies the fastest counts; its error is half its round trip at most.
"""

from collections import deque

_REPLIES = 8


class RedisClock:
    """An estimate of Redis' clock from its last replies."""

    def __init__(self) -> None:
        self._replies: deque[tuple[float, float]] = deque(maxlen=_REPLIES)
        self._offset: float | None = None

    def record(self, redis_ms: int, asked: float, answered: float) -> None:
        """Record a reply: Redis' time in milliseconds; `time.monotonic` before and after the request, in seconds."""
        self._replies.append((answered - asked, redis_ms / 1000 - (asked + answered) / 2))
        self._offset = min(self._replies)[1]

    def forget(self) -> None:
        """Use no earlier reply: it may have come from another server."""
        self._replies.clear()

    def age(self, redis_ms: int, now: float) -> float | None:
        """Return the age of a time at `now` (`time.monotonic`), in seconds and never negative.

        None before the first reply. The id of a message may be ahead of the clock, and so may the estimate.
        """
        if self._offset is None:
            return None
        age = now + self._offset - redis_ms / 1000
        return age if age > 0 else 0.0
