"""Metrics as they stand at one moment: to be sent between processes, put together and written as text."""

from collections.abc import Iterable, Mapping
from typing import Protocol

import msgspec
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Family(msgspec.Struct, frozen=True):
    """All series of one name. A sample is a full name, labels and a value; a counter's family has no `_total`."""

    name: str
    kind: str
    text: str
    samples: list[tuple[str, dict[str, str], float]]


class _Collector(Protocol):
    def collect(self) -> Iterable[Metric]: ...


def collected(collector: _Collector) -> list[Family]:
    """Return what one of prometheus-client's own collectors has to say."""
    return [
        Family(
            metric.name,
            metric.type,
            metric.documentation,
            [(sample.name, dict(sample.labels), sample.value) for sample in metric.samples],
        )
        for metric in collector.collect()
    ]


def merged(label: str, parts: Mapping[str, Iterable[Family]]) -> list[Family]:
    """Put the families of several processes together; `label` says whose series each is."""
    families: dict[str, Family] = {}
    for value, part in parts.items():
        for family in part:
            whole = families.setdefault(family.name, Family(family.name, family.kind, family.text, []))
            whole.samples.extend((name, {**labels, label: value}, number) for name, labels, number in family.samples)
    return list(families.values())


def render(families: Iterable[Family]) -> bytes:
    """Write families in Prometheus' text format."""
    registry = CollectorRegistry()
    registry.register(_Given(families))
    return generate_latest(registry)


class _Given:
    def __init__(self, families: Iterable[Family]) -> None:
        self._families = list(families)

    def collect(self) -> Iterable[Metric]:
        for family in self._families:
            metric = Metric(family.name, family.text, family.kind)
            for name, labels, value in family.samples:
                metric.add_sample(name, labels, value)
            yield metric
