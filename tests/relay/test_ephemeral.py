"""A node without a Redis: everything in this process, for a first try."""

from collections.abc import AsyncIterator

import pytest

from conclave.model import Sealed, Visibility
from conclave.protocol.v1 import admin, frames
from relay.redis.connect import in_process
from tests.support.nodes import running_node
from tests.support.peer import Peers, Refused, text
from tests.support.waiting import wait_until

SEALED = Sealed(bytes(range(256)) + b"\xff\xfe\x00\xc3", "key")
"""Nothing that any text encoding would let through."""


@pytest.fixture
async def url() -> AsyncIterator[str]:
    async with running_node("", make=in_process()) as node:
        yield node


@pytest.fixture
async def pair() -> AsyncIterator[tuple[str, str]]:
    """Two nodes on one server inside this process: the fake has to carry everything that goes through Redis."""
    make = in_process()
    async with running_node("", make=make) as one, running_node("", make=make) as other:
        yield one, other


async def test_posts_whispers_and_history(pair: tuple[str, str], peers: Peers) -> None:
    """Every script and every kind of signal once, bytes that are no text included."""
    ann, bob = await peers.register(pair[0], "ann"), await peers.register(pair[1], "bob")
    await ann.create("ops", Visibility.PRIVATE)
    with pytest.raises(Refused, match=r"^not found: channel `ops` not found$"):
        await bob.join("ops")
    await bob.join("ops", await ann.invite("ops", uses=2, seconds=60))
    await ann.join("ops")
    for body in ("", "hi", "ö\x00\n", SEALED):
        await ann.post("ops", body)
    await ann.ask(frames.Whisper(ann.path, bob.path, SEALED), frames.Ack)
    await wait_until(lambda: len(bob.messages) == 4 and bob.whispers, what="everything arrived")
    assert [text(message.payload) for message in bob.messages[:3]] == ["", "hi", "ö\x00\n"]
    assert bob.messages[3].payload == SEALED
    assert bob.whispers[0].payload == SEALED
    assert [row.payload for row in await bob.page("ops")] == [message.payload for message in bob.messages]
    assert await bob.page("ops", 2**63 - 1) == ()
    assert await ann.who() == await bob.who("ops") == ["ann/laptop/main", "bob/laptop/main"]
    listed = (await bob.ask(frames.ListChannels(), frames.ChannelList)).channels
    assert [(channel.name, channel.visibility, channel.member) for channel in listed] == [
        ("ops", Visibility.PRIVATE, True)
    ]
    await bob.ask(frames.Leave("ops"), frames.Ack)
    assert await ann.who("ops") == ["ann/laptop/main"]


async def test_a_removed_machine_is_out(pair: tuple[str, str], peers: Peers) -> None:
    """Revocation goes through the inboxes, as on a real server."""
    ann, bob = await peers.register(pair[0], "ann"), await peers.register(pair[1], "bob")
    await ann.ask(frames.Admin(admin.MachineRemove("laptop")), frames.Ack)
    assert await ann.wait_closed() == "unauthorized: machine key revoked"
    assert await bob.who() == ["bob/laptop/main"]


async def test_long_history_is_paged_in_order(url: str, peers: Peers) -> None:
    """Ids and pages behave as on a real server."""
    ann = await peers.register(url, "ann")
    await ann.create("ops")
    await ann.join("ops")
    said = [str(n) for n in range(510)]
    for body in said:
        await ann.post("ops", body)
    assert await ann.history("ops") == said


async def test_each_node_of_its_own_starts_empty(peers: Peers) -> None:
    """Gone with the process: nothing is shared by accident, the server's id neither."""
    async with running_node("", make=in_process()) as one, running_node("", make=in_process()) as other:
        first, second = await peers.register(one, "ann"), await peers.register(other, "ann")
        assert first.server_id != second.server_id
        assert await first.who() == ["ann/laptop/main"]
        await peers.close()
