"""A session that stops reading costs a bounded amount of memory, and other sessions nothing."""

from tests.support.nodes import NodeProcess
from tests.support.peer import Peer, Peers
from tests.support.waiting import wait_until

SLOW, BODY_BYTES, POSTS = 4, 64 * 1024, 480
OUTBOX_BYTES = 8 * 1024 * 1024
"""The bound of one session's outbox: a node's default."""
SPARE_BYTES = 24 * 1024 * 1024
"""The other memory of a busy node: messages in flight, its Redis connections, the allocator's reserve."""


async def test_slow_reader_is_dropped_within_its_bound(nodes: list[NodeProcess], peers: Peers) -> None:
    """One hung client must not take a node down, or delay the other sessions.

    30 MB are posted. Unbounded, each of the four slow readers would keep nearly all of it in the node's memory.
    """
    node = nodes[0]
    sender = await peers.register(nodes[1].url, "sender")
    neighbours = [await peers.register(node.url, f"neighbour{i}") for i in range(2)]
    slow = [await peers.register(node.url, f"slow{i}") for i in range(SLOW)]
    await sender.create("ops")
    for peer in (sender, *neighbours, *slow):
        await peer.join("ops")
    await sender.post("ops", "warm up")
    before = most = node.resident_bytes()
    for peer in slow:
        peer.stop_reading()
    for count in range(POSTS):
        await sender.post("ops", f"{count} ".ljust(BODY_BYTES, "x"))
        most = max(most, node.resident_bytes())
        await wait_until(lambda c=count: all(len(n.messages) > c for n in neighbours), what="neighbours keep up")  # type: ignore[misc]
    present = sorted(str(peer.path) for peer in (sender, *neighbours))
    await wait_until(lambda: _shows(sender, present), what="the slow readers are out of presence")
    expected = ["warm up", *(f"{count} ".ljust(BODY_BYTES, "x") for count in range(POSTS))]
    for neighbour in neighbours:
        await wait_until(lambda n=neighbour: len(n.messages) > POSTS, what="the others got everything")  # type: ignore[misc]
        assert neighbour.bodies == expected
    grown = most - before
    assert grown < SLOW * OUTBOX_BYTES + SPARE_BYTES, f"the node grew by {grown / 2**20:.0f} MiB"
    assert 'conclave_session_closes_total{reason="slow_reader"} 4.0' in await node.text("/metrics")


async def _shows(observer: Peer, present: list[str]) -> bool:
    return await observer.who("ops") == present
