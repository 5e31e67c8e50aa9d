"""Presence over two nodes: one list, one holder per path, and no session that has ended."""

import asyncio
import contextlib

import pytest
from nacl.signing import SigningKey

from conclave.model import Visibility
from conclave.protocol.v1 import frames
from relay.services.server_admins import ServerAdmins
from tests.support.nodes import running_node
from tests.support.peer import Peer, Peers
from tests.support.waiting import wait_until

KEY = SigningKey(b"k" * 32)
SUPERSEDED = "unauthorized: session superseded by a newer connection for the same session path"


async def sees(observer: Peer, *paths: str, channel: str | None = None) -> bool:
    return await observer.who(channel) == sorted(paths)


async def test_every_node_shows_all_sessions(pair: tuple[str, str], peers: Peers) -> None:
    """A user's machines and handles are independent sessions; the asker is one of them."""
    ann = peers.keep(await Peer.login(pair[0], KEY, "one", register=("ann", "laptop")))
    other = await peers.login(pair[1], KEY, "two")
    bob = await peers.register(pair[1], "bob")
    for observer in (ann, other, bob):
        assert await sees(observer, "ann/laptop/one", "ann/laptop/two", "bob/laptop/main")


@pytest.mark.parametrize("goodbye", ["close", "cut"])
async def test_a_session_that_leaves_is_gone_on_every_node(pair: tuple[str, str], peers: Peers, goodbye: str) -> None:
    """With a clean close or with a cut connection."""
    ann, bob = await peers.register(pair[0], "ann"), await peers.register(pair[1], "bob")
    await ann.create("ops")
    await ann.join("ops")
    await bob.join("ops")
    if goodbye == "close":
        await ann.close()
    else:
        ann.cut()
    await wait_until(lambda: sees(bob, "bob/laptop/main"), what="ann has left the server")
    await wait_until(lambda: sees(bob, "bob/laptop/main", channel="ops"), what="ann has left the channel")


@pytest.mark.parametrize("to", [0, 1], ids=["same node", "other node"])
async def test_a_later_login_takes_the_path_over(pair: tuple[str, str], peers: Peers, to: int) -> None:
    """The earlier one gets the reason; the later one has joined nothing, and stays when the other cleans up."""
    old = peers.keep(await Peer.login(pair[0], KEY, register=("ann", "laptop")))
    bob = await peers.register(pair[1], "bob")
    await bob.create("ops")
    await bob.join("ops")
    await old.join("ops")
    new = await peers.login(pair[to], KEY)
    assert await old.wait_closed() == SUPERSEDED
    await new.join("ops")
    await old.close()
    await wait_until(
        lambda: sees(bob, "ann/laptop/main", "bob/laptop/main", channel="ops"), what="the channel lists both"
    )
    await bob.whisper(new.path, "are you there?")
    await bob.post("ops", "hello")
    await wait_until(lambda: new.whispers and new.messages, what="the new session gets everything")
    assert await sees(bob, "ann/laptop/main", "bob/laptop/main")
    assert old.messages == []


async def test_a_new_session_has_not_joined_its_predecessors_channels(pair: tuple[str, str], peers: Peers) -> None:
    """Subscriptions belong to a session, not to its path."""
    old = peers.keep(await Peer.login(pair[0], KEY, register=("ann", "laptop")))
    bob = await peers.register(pair[1], "bob")
    await bob.create("ops")
    await bob.join("ops")
    await old.join("ops")
    new = await peers.login(pair[1], KEY)
    await old.wait_closed()
    await wait_until(lambda: sees(bob, "bob/laptop/main", channel="ops"), what="the old subscription is gone")
    await bob.post("ops", "hello")
    await bob.whisper(new.path, "behind it")
    await wait_until(lambda: new.whispers, what="the whisper arrived")
    assert new.messages == []


async def test_of_racing_logins_on_one_path_one_session_stays(pair: tuple[str, str], peers: Peers) -> None:
    """Every other one is superseded, during its login or after it."""
    first = peers.keep(await Peer.login(pair[0], KEY, register=("ann", "laptop")))
    bob = await peers.register(pair[1], "bob")
    results = await asyncio.gather(
        *(Peer.login(pair[i % 2], KEY) for i in range(24)),
        return_exceptions=True,
    )
    sessions = [peers.keep(result) for result in results if isinstance(result, Peer)]
    assert {str(result) for result in results if not isinstance(result, Peer)} <= {SUPERSEDED}

    def still_open() -> list[Peer]:
        return [peer for peer in sessions if peer._reading is not None and not peer._reading.done()]

    assert await first.wait_closed() == SUPERSEDED
    await wait_until(lambda: len(still_open()) == 1, what="one session is left")
    (winner,) = still_open()
    assert [await peer.wait_closed() for peer in sessions if peer is not winner] == [SUPERSEDED] * (len(sessions) - 1)
    await winner.ask(frames.Ping(), frames.Pong)
    await bob.whisper(winner.path, "hello")
    await wait_until(lambda: winner.whispers, what="the winner is the one that is reached")
    assert await sees(bob, "ann/laptop/main", "bob/laptop/main")


@pytest.mark.parametrize("visibility", list(Visibility))
async def test_the_presence_of_a_channel_needs_a_right(redis_url: str, peers: Peers, visibility: Visibility) -> None:
    """Every user has it for a public one; else members, sessions that have joined, and the server's admins."""
    async with running_node(redis_url, admins=ServerAdmins({"root": None})) as one, running_node(redis_url) as other:
        ann, root = await peers.register(one, "ann"), await peers.register(one, "root")
        bob, eve = await peers.register(other, "bob"), await peers.register(other, "eve")
        await ann.create("ops", visibility)
        await bob.join("ops", await ann.invite("ops"))
        for insider in (ann, bob, root):
            assert await insider.who("ops") == ["bob/laptop/main"]
        if visibility is Visibility.PUBLIC:
            assert await eve.who("ops") == ["bob/laptop/main"]
        else:
            assert await eve.refusal(frames.Who("ops")) == "not found: channel `ops` not found"
        await peers.close()


async def test_a_silent_session_is_closed_with_its_reason(redis_url: str, peers: Peers) -> None:
    """Frames count as a sign of life, a WebSocket's own pings do not."""
    async with running_node(redis_url, idle_seconds=0.3) as node:
        silent, lively = await peers.register(node, "ann"), await peers.register(node, "bob")

        async def dropped() -> bool:
            with contextlib.suppress(ConnectionError):
                await silent.ws.ping()
            await lively.ask(frames.Ping(), frames.Pong)
            return silent.close_text is not None

        await wait_until(dropped, what="the silent session is dropped")
        assert silent.close_text == "unauthorized: idle timeout: no heartbeat"
        await wait_until(lambda: sees(lively, "bob/laptop/main"), what="it has left")
        await peers.close()


async def test_a_node_that_stops_closes_its_sessions_with_the_reason(redis_url: str, peers: Peers) -> None:
    """Clients learn that a reconnect makes sense, and presence is right before any timeout."""
    async with running_node(redis_url) as staying:
        bob = await peers.register(staying, "bob")
        async with running_node(redis_url) as leaving:
            ann = await peers.register(leaving, "ann")
            await ann.create("ops")
            await ann.join("ops")
            await bob.join("ops")
            assert await sees(bob, "ann/laptop/main", "bob/laptop/main", channel="ops")
        assert await ann.wait_closed() == "unauthorized: the relay is shutting down; reconnect"
        assert await sees(bob, "bob/laptop/main")
        assert await sees(bob, "bob/laptop/main", channel="ops")
        await peers.close()
