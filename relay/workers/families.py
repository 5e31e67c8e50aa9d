"""The metrics of several processes: collected in each, sent to the parent, and merged there into one page."""

from collections.abc import Iterable, Mapping

import msgspec
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from typing_extensions import override


class Family(msgspec.Struct, frozen=True):
    """All series of one name. A sample is a full name, labels and a value; a counter's family has no `_total`."""

    name: str
    kind: str
    text: str
    samples: list[tuple[str, dict[str, str], float]]


def collect(registry: Collector) -> list[Family]:
    """Return the present values of a process's metrics."""
    return [
        Family(
            metric.name,
            metric.type,
            metric.documentation,
            [(sample.name, dict(sample.labels), sample.value) for sample in metric.samples],
        )
        for metric in registry.collect()
    ]


def merge(label: str, parts: Mapping[str, Iterable[Family]]) -> list[Family]:
    """Merge the families of several processes; `label` tells whose series each is."""
    families: dict[str, Family] = {}
    for value, part in parts.items():
        for family in part:
            whole = families.setdefault(family.name, Family(family.name, family.kind, family.text, []))
            whole.samples.extend((name, {**labels, label: value}, number) for name, labels, number in family.samples)
    return list(families.values())


def render(families: Iterable[Family]) -> bytes:
    """Write families in Prometheus' text format."""
    registry = CollectorRegistry()
    registry.register(_Collected(families))
    return generate_latest(registry)


class _Collected(Collector):
    def __init__(self, families: Iterable[Family]) -> None:
        self._families = list(families)

    @override
    def collect(self) -> Iterable[Metric]:
        for family in self._families:
            metric = Metric(family.name, family.text, family.kind)
            for name, labels, value in family.samples:
                metric.add_sample(name, labels, value)
            yield metric
