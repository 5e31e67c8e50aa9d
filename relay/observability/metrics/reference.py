"""The table of all metrics for the operator's documentation, generated from their declarations."""

import re
from collections.abc import Iterator

from relay.observability.metrics.node import Metrics
from relay.observability.metrics.table import MetricRow
from relay.observability.metrics.workers import WorkerMetrics

BEGIN, END = "<!-- metrics -->", "<!-- /metrics -->"
_BETWEEN = re.compile(f"{BEGIN}.*?{END}", re.DOTALL)
_OPEN = {
    "script": "a script of `relay/redis/scripts`",
    "operation": "as in the audit trail",
    "worker": "0, 1, …",
    "version": "that of the program",
}


def rows() -> list[MetricRow]:
    """Return the rows of all metrics, those of the workers' parent last."""
    return [*Metrics(()).rows, *WorkerMetrics(0).rows]


def written_into(page: str) -> str:
    """Return the page with the current table between its markers.

    Raises:
        ValueError: the page does not have exactly one pair of markers.
    """
    if len(_BETWEEN.findall(page)) != 1:
        raise ValueError(f"expected one place between {BEGIN} and {END}")
    table = "\n".join(_lines())
    return _BETWEEN.sub(lambda _: f"{BEGIN}\n{table}\n{END}", page)


def _lines() -> Iterator[str]:
    yield "| Metric | Type | Labels | Meaning |"
    yield "|---|---|---|---|"
    for row in rows():
        labels = "; ".join(f"`{label}`: {_OPEN.get(label) or ', '.join(row.labels[label])}" for label in row.labels)
        yield f"| `{row.name}` | {row.kind} | {labels} | {row.text} |"
