"""The page: medians of all rounds, ratios of the columns that are worth comparing, as Markdown and as JSON."""

import datetime as dt
import os
import platform
import statistics
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

RATIOS = (
    ("this v2", "Centrifugo"),
    ("this v2", "floor"),
    ("this v2", "floor, joined"),
    ("this v2", "other v2"),
    ("this v1", "other v1"),
)
"""The pairs of columns whose ratio is shown, where both are there."""


class Section(msgspec.Struct):
    """The figures of a scenario: for each metric and each column, the figure of every round."""

    name: str
    title: str
    metrics: dict[str, dict[str, list[float]]] = msgspec.field(default_factory=dict)
    busiest: float = 0.0
    """The greatest share of its cores that the load has used: near 1, it is the load that was measured."""

    def add(self, column: str, figures: dict[str, float]) -> None:
        for metric, value in figures.items():
            self.metrics.setdefault(metric, {}).setdefault(column, []).append(value)

    def median(self, metric: str, column: str) -> float | None:
        values = self.metrics[metric].get(column)
        return statistics.median(values) if values else None


def machine() -> str:
    """Return a line about where and when this was measured, and on which commit."""
    root = Path(__file__).parents[2]
    command = ["git", "-C", str(root), "log", "-1", "--format=%h"]
    commit = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() or "no commit"  # noqa: S603
    model = next((line.split(":")[1].strip() for line in _cpu_lines() if line.startswith("model name")), "unknown CPU")
    today = dt.datetime.now(dt.UTC).date().isoformat()
    return f"{today}, {len(os.sched_getaffinity(0))} cores of {model}, Python {platform.python_version()}, {commit}"


def markdown(sections: Sequence[Section]) -> str:
    """Return one table per section."""
    return "\n\n".join([f"Measured: {machine()}", *map(_table, sections)]) + "\n"


def document(sections: Sequence[Section]) -> bytes:
    """Return everything as JSON, every round's figure included."""
    return msgspec.json.format(msgspec.json.encode({"measured": machine(), "sections": sections}), indent=1)


def _cpu_lines() -> list[str]:
    return Path("/proc/cpuinfo").read_text().splitlines()


def _table(section: Section) -> str:
    columns = list(dict.fromkeys(column for cells in section.metrics.values() for column in cells))
    pairs = [pair for pair in RATIOS if set(pair) <= set(columns)]
    head = ["", *columns, *(f"{one} / {other}" for one, other in pairs)]
    rows = [head, ["---", *["---:"] * (len(head) - 1)]]
    for metric in section.metrics:
        figures = {column: section.median(metric, column) for column in columns}
        ratios = [_ratio(figures[one], figures[other]) for one, other in pairs]
        rows.append([metric, *(_shown(figures[column]) for column in columns), *ratios])
    lines = [f"### {section.title}", "", *(f"| {' | '.join(row)} |" for row in rows)]
    if section.busiest:
        lines += ["", f"`{section.name}`; the load used {section.busiest:.0%} of its cores at most."]
    return "\n".join(lines)


def _ratio(one: float | None, other: float | None) -> str:
    return f"{one / other:.2f}" if one is not None and other else ""


def _shown(figure: Any) -> str:
    if figure is None:
        return ""
    return f"{figure:,.0f}" if abs(figure) >= 100 else f"{figure:.3g}"  # noqa: PLR2004 - three digits
