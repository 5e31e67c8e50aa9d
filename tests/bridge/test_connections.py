"""The merger of two connections that lead to one cluster."""

from pathlib import Path

import pytest

from bridge.connection.connections import Connections
from bridge.connection.handles import Handle
from bridge.errors import SameCluster
from conclave.client.trust import Pins
from conclave.machine.config import LocalConfig
from conclave.machine.keys import create_or_load
from tests.bridge.offline_bridge import ONE, OfflineBridge

OTHER = "ws://two.example/"


def two_uplinks(directory: Path) -> tuple[OfflineBridge, Connections]:
    """Return a bridge with two servers, and its connections, which are not opened."""
    offline = OfflineBridge(directory, ONE, OTHER)
    pins = Pins(directory / "config.toml", LocalConfig())
    key = create_or_load(directory / "key")
    return offline, Connections(offline.session, key, Handle("me", explicit=True), pins, lambda: None)


@pytest.mark.parametrize("late", [0, 1])
async def test_a_call_from_before_a_merger_reaches_the_merged_server(tmp_path: Path, late: int) -> None:
    """The server of its URL does not exist any more; its cluster does."""
    offline, connections = two_uplinks(tmp_path)
    one, two = list(offline.servers)
    first, second = connections.uplink(one.url), connections.uplink(two.url)
    assert first is not second
    connections.claim(one, "cluster")
    with pytest.raises(SameCluster) as same:
        connections.claim(two, "cluster")
    assert not await connections.merge(second, same.value.known)
    assert connections.uplink((one, two)[late].url) is first


async def test_two_uplinks_that_claim_each_other_at_the_same_time_are_merged_once(tmp_path: Path) -> None:
    """The later of the two has nothing left to merge, and stays connected."""
    offline, connections = two_uplinks(tmp_path)
    one, two = list(offline.servers)
    first, second = connections.uplink(one.url), connections.uplink(two.url)
    assert not await connections.merge(second, one.url)
    assert await connections.merge(first, two.url)
    assert (one.urls, first.current.closed, second.current.closed) == ([ONE, OTHER], False, True)
    assert offline.servers == [one]
