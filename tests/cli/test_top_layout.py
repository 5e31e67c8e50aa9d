"""The format of figures, and the fit of the table to the terminal."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.dashboard import layout
from cli.dashboard.figures import NodeRow, figures, totals
from cli.dashboard.snapshot import parse

EVIL = 'conclave_build_info{version="\x1b]0;gotcha\x07[red]0.4"} 1\nconclave_ready 1\nconclave_sessions 3\n'


@pytest.mark.parametrize(
    ("value", "counted", "sized"),
    [
        (None, "-", "-"),
        (0.0, "0", "0B"),
        (0.04, "0", "0B"),
        (0.26, "0.3", "0.3B"),
        (1.0, "1", "1B"),
        (9.97, "10", "10B"),
        (999.4, "999", "999B"),
        (999.6, "1k", "1000B"),
        (1024.0, "1k", "1K"),
        (1500.0, "1.5k", "1.5K"),
        (3_400_000.0, "3.4M", "3.2M"),
        (5e15, "5000T", "4547T"),
    ],
)
def test_numbers_are_short(value: float | None, counted: str, sized: str) -> None:
    """Two significant digits and a unit."""
    assert (layout.count(value), layout.size(value)) == (counted, sized)


@pytest.mark.parametrize(
    ("value", "written"),
    [(None, "-"), (0.0, "0ms"), (0.0004, "0.4ms"), (0.012, "12ms"), (0.25, "250ms"), (1.5, "1.5s"), (10.0, "10s")],
)
def test_durations_have_a_fitting_unit(value: float | None, written: str) -> None:
    assert layout.seconds(value) == written


def rows() -> list[NodeRow]:
    return [
        NodeRow("127.0.0.1:4391", figures([parse(EVIL, 0)])),
        NodeRow("10.0.0.2:4390", None, "connection \x1b[2Jrefused"),
    ]


def test_each_node_has_a_line_and_each_failure_a_reason() -> None:
    """A metric that a node does not have is a dash."""
    lines = layout.aligned(layout.table(rows()))
    assert lines[0].split()[:4] == ["node", "version", "state", "redis"]
    assert re.fullmatch(r"127\.0\.0\.1:4391 .* ready +- +3( +-)+", lines[1])
    assert re.fullmatch(r"10\.0\.0\.2:4390 +- +no answer( +-)+", lines[2])
    assert layout.problems(rows(), ["nodes.example: not found"]) == [
        r"10.0.0.2:4390: connection \x1b[2Jrefused",
        "nodes.example: not found",
    ]


def test_text_from_a_node_cannot_control_the_terminal() -> None:
    """A node chooses its version, and errors may quote it."""
    everything = [*layout.aligned(layout.table(rows())), *layout.problems(rows()), layout.summary(totals(rows()))]
    assert all(line.isprintable() for line in everything)
    assert r"\x1b]0;gotcha" in everything[1]


@given(st.integers(1, 200))
def test_the_table_is_as_wide_as_the_terminal_or_has_only_names(width: int) -> None:
    """The least important columns go first; the state stays to the end."""
    lines = layout.table(rows(), width)
    assert max(map(len, layout.aligned(lines))) <= width or lines[0] == ["node"]
    titles = [column.title for column in layout.COLUMNS]
    assert lines[0] == ["node", *(title for title in titles if title in lines[0])]
    if len(lines[0]) == 2:
        assert lines[0][1] == layout.STATE
    assert len(layout.table(rows(), width + 1)[0]) >= len(lines[0])
