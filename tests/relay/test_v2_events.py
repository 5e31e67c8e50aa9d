"""Events of protocol v2: the loss of a channel, a rename, a gap, the close; v1 sessions receive none of them."""

from typing import Any

import pytest
from nacl.signing import SigningKey
from redis import Redis

from tests.support.blocking import subscriptions_blocked
from tests.support.moderation import ROOT
from tests.support.nodes import node_object, running_node
from tests.support.peer import Peers
from tests.support.v2_peer import V2Peer, V2Peers
from tests.support.waiting import wait_until

KEY = SigningKey(b"b" * 32)


@pytest.fixture
async def v2_pair(redis_url: str, peers: Peers, v2_peers: V2Peers) -> Any:
    """Ann, the creator of `ops`; bob on another node, with v2; old, with v1."""
    async with running_node(redis_url, admins=ROOT) as one, running_node(redis_url, admins=ROOT) as other:
        ann = await v2_peers.register(one, "ann")
        bob = await v2_peers.login(other, KEY, register=("bob", "desk"))
        old = await peers.register(other, "old")
        await ann.create("ops")
        for peer in (ann, bob, old):
            await peer.join("ops")
        yield ann, bob, old, one
        await v2_peers.close()
        await peers.close()


@pytest.mark.parametrize(
    ("op", "fields", "reason"),
    [
        ("kick", {"target": "bob/desk/main"}, "kicked"),
        ("channel.delete", {}, "deleted"),
    ],
)
async def test_a_lost_channel_is_reported_with_the_reason(
    v2_pair: Any, op: str, fields: dict[str, str], reason: str
) -> None:
    """At once, without a further message; a v1 session gets no event."""
    ann, bob, old, _ = v2_pair
    await ann.ask(op, channel="ops", **fields)
    await wait_until(lambda: bob.events, what="bob is told")
    assert bob.events == [{"ev": "left", "channel": "ops", "reason": reason}]
    assert (await bob.ask("channels"))["channels"] == [] or not (await bob.ask("channels"))["channels"][0]["joined"]
    assert await old.who() == ["ann/laptop/main", "bob/desk/main", "old/laptop/main"], "and it is still in step"
    assert ann.of("left") == ([{"ev": "left", "channel": "ops", "reason": reason}] if reason == "deleted" else [])


async def test_a_gap_is_reported_to_live_sessions(v2_pair: Any, redis_url: str) -> None:
    """Live delivery lost messages that the log no longer has: the event comes in their place, and the rest follows."""
    ann, bob, old, _ = v2_pair
    first = await ann.post("ops", "1")
    await wait_until(lambda: bob.ids("ops") == [first], what="bob gets the first one")
    with subscriptions_blocked(redis_url):
        lost = [await ann.post("ops", str(i)) for i in range(3)]
        rest = await ann.post("ops", "rest")
        with Redis.from_url(redis_url) as store:
            (key,) = store.scan_iter("conclave:{c:*}:log")
            store.xtrim(key, minid=rest, approximate=False)
    await wait_until(lambda: bob.ids("ops")[-1:] == [rest], what="bob gets the rest")
    assert [event["ev"] for event in bob.events] == ["message", "gap", "message"]
    assert bob.events[1] == {"ev": "gap", "channel": "ops", "after": first}
    assert not set(lost) & set(bob.ids("ops"))
    await wait_until(lambda: old.bodies[-1:] == ["rest"], what="the v1 session gets the rest")
    assert old.bodies == ["1", "rest"]


async def assert_closed(bob: V2Peer, code: int, reason: str) -> None:
    got, event = await bob.wait_closed()
    assert got == code
    assert event == {"ev": "closing", "code": code, "reason": reason}


async def test_a_removed_user_is_told(v2_pair: Any, v2_peers: V2Peers) -> None:
    """4003."""
    _, bob, _, one = v2_pair
    root = await v2_peers.register(one, "root")
    await root.ask("user.remove", user="bob")
    code, event = await bob.wait_closed()
    assert (code, event["code"], event["reason"]) == (4003, 4003, "user removed from this server")


async def test_a_session_of_a_node_that_ends_is_told(redis_url: str, v2_peers: V2Peers) -> None:
    """1012: the client may reconnect at once."""
    async with node_object(redis_url) as node:
        ann = await v2_peers.register(f"ws://{node.address}/", "ann")
        node.stop()
        await assert_closed(ann, 1012, "the relay is shutting down; reconnect")
        await v2_peers.close()


async def test_a_defect_of_the_relay_closes_the_session_with_its_code(
    redis_url: str, v2_peers: V2Peers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """1011: if a replay failed silently, the client would wait for ever."""
    async with node_object(redis_url) as node:
        ann = await v2_peers.register(f"ws://{node.address}/", "ann")
        await ann.create("ops")

        def fail(*_: object) -> None:
            raise ZeroDivisionError

        monkeypatch.setattr("relay.channels.catch_up.CatchUp.add_page", fail)
        await ann.join("ops", since="0-0")
        assert (await ann.wait_closed())[0] == 1011
        await v2_peers.close()
