"""One order of messages, on every node and in history."""

import asyncio

from tests.support.nodes import NodeProcess
from tests.support.peer import Peer, Peers, text
from tests.support.waiting import wait_until

SENDERS, READERS, EACH = 8, 6, 100


async def test_every_reader_gets_every_message_once_in_one_order(nodes: list[NodeProcess], peers: Peers) -> None:
    """A conversation only makes sense if all sessions receive it in the same order, on any node.

    The senders do not wait for their acknowledgements, so the messages of all nodes race each other into the log.
    """
    senders = [await peers.register(nodes[i % 3].url, f"sender{i}") for i in range(SENDERS)]
    readers = [await peers.register(nodes[i % 3].url, f"reader{i}") for i in range(READERS)]
    await senders[0].create("ops")
    for peer in (*senders, *readers):
        await peer.join("ops")
    await asyncio.gather(
        *(sender.post("ops", f"{i} {count}") for count in range(EACH) for i, sender in enumerate(senders))
    )
    everything = {f"{i} {count}" for i in range(SENDERS) for count in range(EACH)}
    await wait_until(
        lambda: all(len(reader.messages) >= len(everything) for reader in readers),
        timeout=30,
        what="every reader has as many messages as were sent",
    )
    order = readers[0].bodies
    assert len(order) == len(everything)
    assert set(order) == everything
    assert all(reader.bodies == order for reader in readers)
    for i in range(SENDERS):
        own = [body for body in order if body.startswith(f"{i} ")]
        assert own == [f"{i} {count}" for count in range(EACH)], "what one sender said changed its order"
    for i, sender in enumerate(senders):
        others = [body for body in order if not body.startswith(f"{i} ")]
        await wait_until(lambda s=sender, o=others: len(s.messages) >= len(o), what="senders get each other's messages")  # type: ignore[misc]
        assert sender.bodies == others, "a sender gets all messages but its own, in the same order"
    for reader in readers[:3]:
        assert await reader.history("ops") == order


async def test_history_can_be_read_while_it_grows(nodes: list[NodeProcess], peers: Peers) -> None:
    """Paging through a busy channel must not miss messages that share a millisecond with the end of a page."""
    senders = [await peers.register(nodes[i].url, f"sender{i}") for i in range(3)]
    await senders[0].create("ops")
    pager = await peers.register(nodes[0].url, "pager")
    for peer in (*senders, pager):
        await peer.join("ops")
    posting = asyncio.gather(
        *(sender.post("ops", f"{i} {count}") for count in range(250) for i, sender in enumerate(senders))
    )
    bodies = await _page_until_quiet(pager, posting)
    await wait_until(lambda: len(pager.messages) >= 750, timeout=20, what="the pager has got everything")
    assert bodies == pager.bodies
    assert len(set(bodies)) == 750


async def _page_until_quiet(pager: Peer, posting: "asyncio.Future[list[None]]") -> list[str]:
    """Read page after page while others post; the first empty page after they have ended is the end."""
    bodies: list[str] = []
    since = 0
    while True:
        ended = posting.done()
        page = await pager.page("ops", since)
        if page:
            bodies += [text(message.payload) for message in page]
            since = page[-1].ts_ms
        elif ended:
            return bodies
