"""The formula of docs/performance.md: it is the page's, and more load never needs less."""

import re
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.sizing import MACHINE, Load, example, growth, need, nodes_for

PAGE = (Path(__file__).parents[2] / "docs" / "performance.md").read_text(encoding="utf-8")
loads = st.builds(Load, st.integers(1, 10**6), st.floats(0.1, 500), st.floats(1, 200))


def test_the_page_has_the_table_of_the_growth_and_the_worked_example() -> None:
    """Both are computed; a page that was written by hand would be of other costs at the next measurement."""
    assert growth() in PAGE
    words = " ".join(PAGE.split())
    found = re.search(r"--sessions (\d+) --messages (\d+) --listeners (\d+)", words)
    assert found is not None
    load = Load(*map(int, found.groups()))
    assert example(load, 0.5) in words


@pytest.mark.parametrize("name", [field for field in MACHINE.__struct_fields__ if field != "node_bytes"])
def test_the_page_names_every_cost(name: str) -> None:
    """A reader puts in the costs of another machine."""
    assert f"`{name}`" in PAGE


@given(loads, st.integers(1, 100))
def test_more_messages_and_more_listeners_need_more(load: Load, nodes: int) -> None:
    """A sign or a missing term would make a larger server cheaper."""
    before = need(load, nodes)
    for field in ("messages", "listeners", "sessions"):
        more = msgspec.structs.replace(load, **{field: getattr(load, field) * 2})
        after = need(more, nodes)
        assert after.node_cores > before.node_cores
        assert after.store_cores >= before.store_cores
        assert after.node_bytes >= before.node_bytes


@given(loads)
def test_the_nodes_are_no_busier_than_they_may_be(load: Load) -> None:
    """A count that is one too small is an outage at noon."""
    nodes = nodes_for(load, 0.5)
    assert need(load, nodes).node_cores <= nodes * 0.5
    assert nodes == 1 or need(load, nodes - 1).node_cores > (nodes - 1) * 0.5
