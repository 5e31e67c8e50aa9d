"""Counters and histograms without locks, for the events of every delivery.

A node counts in one thread, so a plain addition is enough. prometheus-client locks around each one, which costs a
quarter to a half more CPU per delivery (docs/decisions/0010). Every other metric is the library's own.
"""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import accumulate

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import INF, floatToGoString
from typing_extensions import override


class UnlockedCounter(Collector):
    """A counter for one thread."""

    def __init__(self, name: str, text: str) -> None:
        self._name = name
        self._text = text
        self._value = 0

    def inc(self, amount: int = 1) -> None:
        self._value += amount

    @override
    def collect(self) -> Iterator[CounterMetricFamily]:
        yield CounterMetricFamily(self._name, self._text, self._value)


class UnlockedHistogram(Collector):
    """A histogram for one thread."""

    def __init__(self, name: str, text: str, bounds: Sequence[float]) -> None:
        """`bounds` are the greatest values of each bucket but the last, in ascending order."""
        self._name = name
        self._text = text
        self._bounds = tuple(bounds)
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    @override
    def collect(self) -> Iterator[HistogramMetricFamily]:
        names = [floatToGoString(bound) for bound in (*self._bounds, INF)]  # type: ignore[no-untyped-call]
        buckets = list(zip(names, accumulate(self._counts), strict=True))
        yield HistogramMetricFamily(self._name, self._text, buckets, self._sum)
