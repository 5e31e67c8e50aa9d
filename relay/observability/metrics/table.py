"""A set of metrics that knows its own table: every metric is declared once, with all that is said about it."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import msgspec

from relay.observability.metrics.families import Family
from relay.observability.metrics.instruments import Counter, Gauge, Histogram, Instrument, Labelled

PREFIX = "conclave_"

T = TypeVar("T", bound=Instrument)


class MetricRow(msgspec.Struct, frozen=True):
    """What there is to say about a metric. `labels` maps each label to the values that it can have."""

    name: str
    kind: str
    text: str
    labels: dict[str, tuple[str, ...]]


class Table:
    """Metrics under one prefix. Names are given without it, and without `_total`."""

    def __init__(self) -> None:
        self.rows: list[MetricRow] = []
        self._instruments: list[Instrument] = []

    def families(self) -> list[Family]:
        """Return everything as it stands."""
        return [
            Family(
                base := row.name.removesuffix("_total"),
                row.kind,
                row.text,
                [(base + suffix, labels, value) for suffix, labels, value in instrument.samples()],
            )
            for row, instrument in zip(self.rows, self._instruments, strict=True)
        ]

    def _counter(self, name: str, text: str) -> Counter:
        return self._add(name, "counter", text, Counter())

    def _counters(self, name: str, text: str, *, complete: bool = True, **labels: Sequence[str]) -> Labelled[Counter]:
        return self._labelled(name, "counter", text, Counter, labels, complete=complete)

    def _gauge(self, name: str, text: str) -> Gauge:
        return self._add(name, "gauge", text, Gauge())

    def _gauges(self, name: str, text: str, **labels: Sequence[str]) -> Labelled[Gauge]:
        return self._labelled(name, "gauge", text, Gauge, labels, complete=True)

    def _histogram(self, name: str, text: str, bounds: Sequence[float]) -> Histogram:
        return self._add(name, "histogram", text, Histogram(bounds))

    def _histograms(
        self, name: str, text: str, bounds: Sequence[float], **labels: Sequence[str]
    ) -> Labelled[Histogram]:
        return self._labelled(name, "histogram", text, lambda: Histogram(bounds), labels, complete=False)

    def _labelled(
        self,
        name: str,
        kind: str,
        text: str,
        make: Callable[[], T],
        labels: dict[str, Sequence[str]],
        *,
        complete: bool,
    ) -> Labelled[T]:
        closed = {label: tuple(values) for label, values in labels.items()}
        return self._add(name, kind, text, Labelled(make, closed, complete=complete), closed)

    def _add(
        self, name: str, kind: str, text: str, instrument: T, labels: dict[str, tuple[str, ...]] | None = None
    ) -> T:
        full = PREFIX + name + ("_total" if kind == "counter" else "")
        self.rows.append(MetricRow(full, kind, text, labels or {}))
        self._instruments.append(instrument)
        return instrument
