"""Figures as text: the columns of the table and the line above it. Text from nodes is escaped for terminals. Pure."""

from collections.abc import Callable, Sequence

import msgspec

from cli.dashboard.figures import Figures, NodeRow, Totals
from conclave.text import visible

ABSENT = "-"
NO_ANSWER = "no answer"
_GAP = 2
_THOUSAND, _KIBI = 1000.0, 1024.0
_LONGEST_VERSION = 20
_LONGEST_PROBLEM = 200


class Column(msgspec.Struct, frozen=True):
    """A column of the table. In a narrow terminal the columns with the greatest `rank` are left out first."""

    title: str
    rank: int
    cell: Callable[[Figures], str]


def count(value: float | None) -> str:
    """Format a count, or a count per second: `0`, `0.5`, `12`, `1.2k`, `3.4M`."""
    if value is None:
        return ABSENT
    return _scaled(value, _THOUSAND, ("", "k", "M", "G", "T"))


def size(value: float | None) -> str:
    """Format a number of bytes: `512B`, `1.5K`, `20M`."""
    return ABSENT if value is None else _scaled(value, _KIBI, ("B", "K", "M", "G", "T"))


def seconds(value: float | None) -> str:
    """Format a duration: `0.4ms`, `12ms`, `1.5s`."""
    if value is None:
        return ABSENT
    return f"{_short(value)}s" if value >= 1 else f"{_short(value * 1000)}ms"


def _scaled(value: float, step: float, units: tuple[str, ...]) -> str:
    unit = 0
    while value >= step - 0.5 and unit < len(units) - 1:
        value /= step
        unit += 1
    return f"{_short(value)}{units[unit]}"


def _short(value: float) -> str:
    """Format with two significant digits; from 10 on without decimals."""
    return f"{value:.0f}" if value >= 9.95 or value < 0.05 else f"{value:.1f}".removesuffix(".0")  # noqa: PLR2004


def _redis(up: bool | None) -> str:
    return ABSENT if up is None else "up" if up else "down"


def _version(text: str | None) -> str:
    return ABSENT if text is None else visible(text)[:_LONGEST_VERSION]


COLUMNS = (
    Column("version", 9, lambda one: _version(one.version)),
    Column("state", 0, lambda one: one.state or ABSENT),
    Column("redis", 3, lambda one: _redis(one.redis_up)),
    Column("sessions", 1, lambda one: count(one.sessions)),
    Column("channels", 8, lambda one: count(one.channels)),
    Column("in/s", 2, lambda one: count(one.messages_in)),
    Column("out/s", 2, lambda one: count(one.messages_out)),
    Column("B in/s", 7, lambda one: size(one.bytes_in)),
    Column("B out/s", 7, lambda one: size(one.bytes_out)),
    Column("lag p99", 4, lambda one: seconds(one.pubsub_lag)),
    Column("loop p99", 6, lambda one: seconds(one.loop_lag)),
    Column("outbox", 6, lambda one: size(one.outbox_bytes)),
    Column("refused/s", 5, lambda one: count(one.refusals)),
)
STATE = "state"


def summary(all_nodes: Totals) -> str:
    """Return the line above the table."""
    seen = "" if all_nodes.registered is None else f", {count(all_nodes.registered)} in the cluster"
    return "  ".join(
        [
            f"{all_nodes.ready} of {all_nodes.nodes} nodes ready{seen}",
            f"sessions {count(all_nodes.sessions)}",
            f"messages {count(all_nodes.messages_in)}/s in, {count(all_nodes.messages_out)}/s out",
            f"bytes {size(all_nodes.bytes_in)}/s in, {size(all_nodes.bytes_out)}/s out",
            f"lag p99 {seconds(all_nodes.pubsub_lag)}",
            f"refused {count(all_nodes.refusals)}/s",
        ]
    )


def table(rows: Sequence[NodeRow], width: int | None = None) -> list[list[str]]:
    """Return the titles and a line of cells for each node; with a width, only the columns that fit."""
    columns = list(COLUMNS)
    lines = _lines(rows, columns)
    while width is not None and columns and _width(lines) > width:
        columns.remove(max(reversed(columns), key=lambda column: column.rank))
        lines = _lines(rows, columns)
    return lines


def problems(rows: Sequence[NodeRow], others: Sequence[str] = ()) -> list[str]:
    """Return a line for each node that did not answer, and for each other problem."""
    of_nodes = (f"{row.node}: {row.error}" for row in rows if row.error is not None)
    return [visible(line)[:_LONGEST_PROBLEM] for line in (*of_nodes, *others)]


def aligned(lines: Sequence[Sequence[str]]) -> list[str]:
    """Return lines of plain text: the first column is aligned to the left, the others to the right."""
    widths = _widths(lines)
    gap = " " * _GAP
    return [
        gap.join(
            cell.rjust(width) if at else cell.ljust(width)
            for at, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]


def _lines(rows: Sequence[NodeRow], columns: Sequence[Column]) -> list[list[str]]:
    return [["node", *(column.title for column in columns)], *(_line(row, columns) for row in rows)]


def _line(row: NodeRow, columns: Sequence[Column]) -> list[str]:
    if row.figures is None:
        return [visible(row.node), *(NO_ANSWER if column.title == STATE else ABSENT for column in columns)]
    return [visible(row.node), *(column.cell(row.figures) for column in columns)]


def _widths(lines: Sequence[Sequence[str]]) -> list[int]:
    return [max(map(len, cells)) for cells in zip(*lines, strict=True)]


def _width(lines: Sequence[Sequence[str]]) -> int:
    widths = _widths(lines)
    return sum(widths) + _GAP * (len(widths) - 1)
