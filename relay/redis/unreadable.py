"""What another version wrote, or another program, and this node cannot read: it is counted, logged and skipped."""

import time
from collections.abc import Callable, Iterable
from typing import TypeVar

import structlog

from relay.observability.metrics import Metrics

log = structlog.get_logger()

A = TypeVar("A")
T = TypeVar("T")

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

    def read(self, where: str, parse: Callable[[A], T], value: A) -> T | None:
        """Return what `parse` makes of a value; None if it raises ValueError or TypeError, which is counted."""
        try:
            return parse(value)
        except (ValueError, TypeError):
            self.count(where)
            return None

    def read_all(self, where: str, parse: Callable[[A], T], values: Iterable[A]) -> list[T]:
        """Return what `parse` makes of each value, without those that cannot be read."""
        return [found for value in values if (found := self.read(where, parse, value)) is not None]
