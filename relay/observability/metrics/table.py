"""A set of metrics with a registry of its own. Each metric is declared once, and documented by the same declaration."""

from collections.abc import Sequence
from typing import Generic, TypeVar

import msgspec
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.registry import Collector

from relay.observability.metrics.instruments import UnlockedCounter, UnlockedHistogram

PREFIX = "conclave_"
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
OTHER = "other"
"""The label of a value outside its closed set, which bounds the number of series."""

Labels = dict[str, tuple[str, ...]]
"""The values that each label may have."""

M = TypeVar("M", bound=MetricWrapperBase)
C = TypeVar("C", bound=Collector)


class MetricRow(msgspec.Struct, frozen=True):
    """A metric in the documentation's table."""

    name: str
    kind: str
    text: str
    labels: Labels


class Labelled(Generic[M]):
    """A metric with labels out of closed sets of values."""

    def __init__(self, metric: M, labels: Labels, *, complete: bool) -> None:
        """With `complete`, which is for one label, every series exists from the start: a first event is an increase."""
        self._metric = metric
        self._labels = labels
        if complete:
            ((name, values),) = labels.items()
            for value in values:
                self.labels(**{name: value})

    def labels(self, **values: str) -> M:
        """Return the series of these labels; a value outside its set counts as `other`."""
        return self._metric.labels(
            **{name: value if value in self._labels[name] else OTHER for name, value in values.items()}
        )


class Table:
    """Metrics under one prefix. Names are given without it, and without `_total`."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.rows: list[MetricRow] = []

    def render(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self.registry)

    def _counter(self, name: str, text: str) -> Counter:
        return Counter(self._declare(name, "counter", text), text, registry=self.registry)

    def _counters(self, name: str, text: str, *, complete: bool = True, **labels: Sequence[str]) -> Labelled[Counter]:
        closed = _closed(labels)
        full = self._declare(name, "counter", text, closed)
        return Labelled(Counter(full, text, list(closed), registry=self.registry), closed, complete=complete)

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(self._declare(name, "gauge", text), text, registry=self.registry)

    def _gauges(self, name: str, text: str, **labels: Sequence[str]) -> Labelled[Gauge]:
        closed = _closed(labels)
        full = self._declare(name, "gauge", text, closed)
        return Labelled(Gauge(full, text, list(closed), registry=self.registry), closed, complete=True)

    def _histogram(self, name: str, text: str, bounds: Sequence[float]) -> Histogram:
        return Histogram(self._declare(name, "histogram", text), text, buckets=bounds, registry=self.registry)

    def _histograms(
        self, name: str, text: str, bounds: Sequence[float], **labels: Sequence[str]
    ) -> Labelled[Histogram]:
        closed = _closed(labels)
        full = self._declare(name, "histogram", text, closed)
        histogram = Histogram(full, text, list(closed), buckets=bounds, registry=self.registry)
        return Labelled(histogram, closed, complete=False)

    def _unlocked_counter(self, name: str, text: str) -> UnlockedCounter:
        return self._register(UnlockedCounter(self._declare(name, "counter", text), text))

    def _unlocked_histogram(self, name: str, text: str, bounds: Sequence[float]) -> UnlockedHistogram:
        return self._register(UnlockedHistogram(self._declare(name, "histogram", text), text, bounds))

    def _register(self, collector: C) -> C:
        self.registry.register(collector)
        return collector

    def _declare(self, name: str, kind: str, text: str, labels: Labels | None = None) -> str:
        """Add a row to the table and return the full name, without `_total`."""
        full = PREFIX + name
        self.rows.append(MetricRow(full + ("_total" if kind == "counter" else ""), kind, text, labels or {}))
        return full


def _closed(labels: dict[str, Sequence[str]]) -> Labels:
    return {label: tuple(values) for label, values in labels.items()}
