"""Counters, gauges and histograms for one thread.

A node has one thread, so its instruments need no locks: counting costs a tenth and observing a fifth of what
prometheus-client's own take (docs/decisions/0010). That library still says what a metric is and writes the text.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from typing import Any, Generic, Protocol, TypeVar

from prometheus_client.utils import INF, floatToGoString

OTHER = "other"
"""What a label says instead of a value that is not one of its own: whatever happens, there are only so many series."""

Sample = tuple[str, dict[str, str], float]
"""What follows the family's name, the labels, the value."""


class Instrument(Protocol):
    """Something with a present value, or several."""

    def samples(self) -> Iterator[Sample]: ...


class Counter:
    """Only grows."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0

    def inc(self, by: int = 1) -> None:
        self.value += by

    def samples(self) -> Iterator[Sample]:
        yield "_total", {}, self.value


class Gauge:
    """Goes up and down; either set, or asked for when somebody looks."""

    __slots__ = ("_value",)

    def __init__(self) -> None:
        self._value: Callable[[], float] = lambda: 0

    def set(self, value: float) -> None:
        self._value = lambda: value

    def set_function(self, value: Callable[[], float]) -> None:
        self._value = value

    def samples(self) -> Iterator[Sample]:
        yield "", {}, float(self._value())


class Histogram:
    """How often which sizes were seen, in buckets that can be added up over nodes."""

    __slots__ = ("_bounds", "_counts", "_sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        """`bounds` are the greatest values of each bucket but the last, in ascending order."""
        self._bounds = tuple(bounds)
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def samples(self) -> Iterator[Sample]:
        total = 0
        for bound, total in zip((*self._bounds, INF), accumulate(self._counts), strict=True):
            yield "_bucket", {"le": str(floatToGoString(bound))}, total  # type: ignore[no-untyped-call]
        yield "_count", {}, total
        yield "_sum", {}, self._sum


T = TypeVar("T", bound=Instrument)


class Labelled(Generic[T]):
    """One instrument for each combination of labels, out of closed sets of values."""

    def __init__(self, make: Callable[[], T], labels: dict[str, tuple[str, ...]], *, complete: bool) -> None:
        """With `complete` every combination is there from the start, so that the first event is an increase."""
        self._make = make
        self._labels = labels
        self._children: dict[tuple[str, ...], T] = {}
        if complete:
            (name,) = labels
            for value in labels[name]:
                self.labels(**{name: value})

    def labels(self, **values: str) -> T:
        """Return the instrument of these labels, always the same one."""
        key = tuple(map(values.__getitem__, self._labels))
        child = self._children.get(key)
        if child is None:
            key = tuple(
                value if value in known else OTHER for value, known in zip(key, self._labels.values(), strict=True)
            )
            child = self._children.get(key) or self._children.setdefault(key, self._make())
        return child

    def samples(self) -> Iterator[Sample]:
        for values, child in self._children.items():
            named: Any = dict(zip(self._labels, values, strict=True))
            for suffix, labels, value in child.samples():
                yield suffix, named | labels, value
