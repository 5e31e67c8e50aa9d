"""What another version wrote, or another program, and this node cannot read: it is counted, logged and skipped."""

import time

import structlog

from relay.observability.metrics import Metrics

log = structlog.get_logger()

_LOG_SECONDS = 10.0
"""The least time between two log entries about the same place."""


class Unreadable:
    """Counts values that cannot be read."""

    def __init__(self, metrics: Metrics) -> None:
        self._counter = metrics.unreadable
        self._logged: dict[str, float] = {}

    def count(self, where: str) -> None:
        """Count a value that could not be read. `where` is one of the metric's labels."""
        self._counter.labels(where=where).inc()
        now = time.monotonic()
        if now - self._logged.get(where, -_LOG_SECONDS) >= _LOG_SECONDS:
            self._logged[where] = now
            log.warning("format.unreadable", where=where)
