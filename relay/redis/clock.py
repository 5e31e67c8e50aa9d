"""Redis' clock, as this node estimates it.

The age of a message is the difference between its time, by Redis' clock, and the present. The node's own wall clock may
be wrong by more than that. So each heartbeat returns Redis' time, and the node adds the monotonic time that has passed
since. Of the last replies the fastest counts; its error is half its round trip at most.

After a failover another server's clock counts, which may be behind. Ids of messages are times of that clock, so a new
message could get an earlier id than one that was delivered before, and that the new server has lost. The former clock,
as it would go on, bounds the ids of new messages until every node has compared its channels with the new server's.
"""

import time
from collections import deque

_REPLIES = 8
_BOUND_SECONDS = 60.0
"""The time after an interruption for which the former clock counts."""
_BEATS_SECONDS = 10.0
"""A node that starts knows the former clock by heartbeats. Messages may be later than the last of them, by this."""
_MOST_BEHIND_SECONDS = 3600.0
"""A former clock that is further ahead than this was wrong."""
_TOLERANCE_SECONDS = 0.05
"""No message is as young as this when another server takes over."""


class RedisClock:
    """An estimate of Redis' clock from its last replies."""

    def __init__(self) -> None:
        self._replies: deque[tuple[float, float]] = deque(maxlen=_REPLIES)
        self._offset: float | None = None
        self._former: float | None = None
        """The greatest possible offset of the clock before an interruption, while the present one may be behind it."""
        self._former_until = 0.0

    def record(self, redis_ms: int, asked: float, answered: float, *, latest_ms: float = 0) -> None:
        """Record a reply: Redis' time in milliseconds; `time.monotonic` before and after the request, in seconds.

        `latest_ms` is the latest time that the former clock is known to have shown.
        """
        self._replies.append((answered - asked, redis_ms / 1000 - (asked + answered) / 2))
        round_trip, self._offset = min(self._replies)
        if latest_ms / 1000 > redis_ms / 1000 + _TOLERANCE_SECONDS:
            self._bound(latest_ms / 1000 + _BEATS_SECONDS - answered)
        if self._former is not None:
            behind = self._former - self._offset - round_trip / 2
            if not _TOLERANCE_SECONDS < behind < _MOST_BEHIND_SECONDS:
                self._former = None

    def forget(self) -> None:
        """Use no earlier reply: it may have come from another server."""
        if self._replies:
            round_trip, offset = min(self._replies)
            self._bound(offset + round_trip / 2)
        self._replies.clear()

    def _bound(self, former: float) -> None:
        self._former = former if self._former is None else max(former, self._former)
        self._former_until = time.monotonic() + _BOUND_SECONDS

    def not_before(self) -> int:
        """Return the time before which no new message may be, in Redis' milliseconds; 0 if Redis' clock is right."""
        if self._former is None:
            return 0
        now = time.monotonic()
        if now > self._former_until:
            self._former = None
            return 0
        return int((now + self._former) * 1000) + 1

    def age(self, redis_ms: int, now: float) -> float | None:
        """Return the age of a time at `now` (`time.monotonic`), in seconds and never negative.

        None before the first reply. The id of a message may be ahead of the clock, and so may the estimate.
        """
        if self._offset is None:
            return None
        age = now + self._offset - redis_ms / 1000
        return age if age > 0 else 0.0
