"""Calls after two uplinks have turned out to lead to one cluster."""

from pathlib import Path

import pytest

from bridge.connection.connections import Connections
from bridge.connection.handles import Handle
from bridge.errors import SameCluster
from conclave.client.trust import Pins
from conclave.machine.config import LocalConfig
from conclave.machine.keys import create_or_load
from tests.bridge.test_dispatch import ONE, Desk

OTHER = "ws://two.example/"


@pytest.mark.parametrize("late", [0, 1])
async def test_a_call_that_was_begun_before_two_servers_became_one_finds_its_way(tmp_path: Path, late: int) -> None:
    """It was on its way to a server that does not exist any more by that name; its cluster does."""
    desk = Desk(tmp_path, ONE, OTHER)
    pins = Pins(tmp_path / "config.toml", LocalConfig())
    key = create_or_load(tmp_path / "key")
    connections = Connections(desk.session, key, Handle("me", explicit=True), pins, lambda: None)
    one, two = list(desk.servers)
    first, second = connections.uplink(one.url), connections.uplink(two.url)
    assert first is not second
    connections.claim(one, "cluster")
    with pytest.raises(SameCluster) as same:
        connections.claim(two, "cluster")
    assert not await connections.merge(second, same.value.known)
    assert connections.uplink((one, two)[late].url) is first


async def test_two_uplinks_that_find_each_other_at_the_same_time_are_merged_once(tmp_path: Path) -> None:
    """The later of the two has nothing left to merge, and stays connected."""
    desk = Desk(tmp_path, ONE, OTHER)
    pins = Pins(tmp_path / "config.toml", LocalConfig())
    key = create_or_load(tmp_path / "key")
    connections = Connections(desk.session, key, Handle("me", explicit=True), pins, lambda: None)
    one, two = list(desk.servers)
    first, second = connections.uplink(one.url), connections.uplink(two.url)
    assert not await connections.merge(second, one.url)
    assert await connections.merge(first, two.url)
    assert (one.urls, first.current.closed, second.current.closed) == ([ONE, OTHER], False, True)
    assert desk.servers == [one]
