"""What a later version writes and this one cannot read: counted and skipped, and the node goes on."""

import re
from collections.abc import AsyncIterator

import pytest
from redis import Redis

from conclave.model import SessionPath
from relay.app.node import Node
from relay.redis.keys import Keys
from tests.support.nodes import node_object
from tests.support.peer import Peers
from tests.support.v2_peer import V2Peers
from tests.support.waiting import wait_until

KEYS = Keys("conclave")
BOB = SessionPath("bob", "laptop", "main")
JUNK = b"\xff later"


@pytest.fixture
async def node(redis_url: str) -> AsyncIterator[Node]:
    async with node_object(redis_url) as node:
        yield node


def unreadable(node: Node) -> set[str]:
    """Return what could not be read, by the labels of the metric."""
    text = node.parts.metrics.render().decode()
    return set(re.findall(r'^conclave_unreadable_total\{where="(\w+)"\} [1-9]', text, re.MULTILINE))


async def test_records_of_a_later_format_are_skipped(node: Node, redis_url: str, v2_peers: V2Peers) -> None:
    """Logins, whispers, listings and heartbeats meet them, and none fails."""
    url = f"ws://{node.address}/"
    ann, bob = await v2_peers.register(url, "ann"), await v2_peers.register(url, "bob")
    await ann.create("ops")
    await ann.join("ops")
    with Redis.from_url(redis_url) as store:
        (subscribers,) = store.keys("*:subs")
        store.hset(subscribers, mapping={"x": "no-path", "y": JUNK, "z": f"{node.name} cid/laptop/one two\0more"})
        store.hset(KEYS.lease(BOB), mapping={"x": "v2", "y": JUNK})
        store.hset(KEYS.sessions(node.name), mapping={"x": "no-path", "y": JUNK, "z": "cid/laptop/one two\0more"})
        store.zadd(KEYS.nodes, {JUNK: -1})
    assert (await ann.ask("who", channel="ops"))["sessions"] == ["ann/laptop/main", "cid/laptop/one two"]
    assert (await ann.ask("who"))["sessions"] == ["ann/laptop/main", "bob/laptop/main", "cid/laptop/one two"]
    await ann.ask("whisper", to=bob.path, body={"text": "psst"})
    await bob.join("ops")
    found = {"lease", "sessions", "nodes", "subscribers"}
    await wait_until(lambda: unreadable(node) == found, what="the node beats, and has met all of them")
    assert node.is_ready
    await v2_peers.close()


async def test_an_announcement_of_a_later_format_stays_for_a_node_that_reads_it(node: Node, redis_url: str) -> None:
    """It would be lost if it were taken for one that was made; the others are made."""
    with Redis.from_url(redis_url) as store:
        store.hset(
            KEYS.due, mapping={"c1": "moved 7", "c2": "changed later", "c3": "changed 7 more", "key:k": "revoked 1"}
        )
        for _ in range(2):  # what was pending at the last look was left by its node
            await node.parts.announcements.publish_pending()
        await wait_until(
            lambda: store.hgetall(KEYS.due) == {b"c1": b"moved 7", b"c2": b"changed later"}, what="the others are made"
        )
        assert store.hget(KEYS.head("c3"), "version") == b"7"
    assert unreadable(node) == {"announcement"}


@pytest.mark.usefixtures("node")
async def test_a_dead_node_with_records_of_a_later_format_is_removed(redis_url: str) -> None:
    """Nothing of it may stay, and nothing of it may stop the janitor."""
    with Redis.from_url(redis_url) as store:
        store.hset(KEYS.sessions("dead"), mapping={"c1": "no-path", "c2": JUNK, "c3": str(BOB)})
        store.hset(KEYS.lease(BOB), mapping={"c3": "5 dead more", "c4": "v2"})
        store.sadd(KEYS.channels("dead"), "ch")
        store.hset(KEYS.subscribers("ch"), mapping={"c3": f"dead {BOB}\0more", "c4": JUNK})
        store.zadd(KEYS.nodes, {"dead": -1})
        await wait_until(lambda: store.zscore(KEYS.nodes, "dead") is None, what="the dead node is removed")
        assert store.hgetall(KEYS.lease(BOB)) == {b"c4": b"v2"}
        assert store.hgetall(KEYS.subscribers("ch")) == {b"c4": JUNK}
        assert not store.exists(KEYS.sessions("dead"))


async def test_rows_of_a_later_format_have_their_place_in_the_log_and_reach_nobody(
    node: Node, redis_url: str, v2_peers: V2Peers, peers: Peers
) -> None:
    """Live sessions, sessions that come back, and readers of history of both protocol versions get all the others."""
    url = f"ws://{node.address}/"
    ann, bob, cid = (
        await v2_peers.register(url, "ann"),
        await v2_peers.register(url, "bob"),
        await peers.register(url, "cid"),
    )
    await ann.create("ops")
    for peer in (ann, bob, cid):
        await peer.join("ops")
    first = await ann.post("ops", "first")
    await wait_until(lambda: bob.texts("ops") == ["first"], what="bob gets the first message")
    with Redis.from_url(redis_url) as store:
        (log,), (head,) = store.keys("*:log"), store.keys("*:head")
        for fields in ({"v2": "x"}, {"g": "x", "f": "ann/laptop/main", "p": "x"}, {"f": JUNK, "p": "x"}):
            store.hset(head, "tip", store.xadd(log, fields))
        store.publish(log.replace(b":log", b":live"), "v2 x")
    await ann.post("ops", "second")
    await wait_until(lambda: bob.texts("ops") == ["first", "second"], what="bob gets the second message")
    assert [row["body"]["text"] for row in await ann.history("ops")] == ["first", "second"]
    one_by_one = await ann.ask("history", channel="ops", after=first, limit=1)
    assert [row["body"]["text"] for row in one_by_one["messages"]] == ["second"]
    assert await cid.history("ops") == ["first", "second"]
    await bob.ask("leave", channel="ops")
    bob.events.clear()
    assert (await bob.join("ops", since="0-0"))["recovered"] is True
    await wait_until(lambda: bob.texts("ops") == ["first", "second"], what="bob gets both again")
    assert bob.of("gap") == []
    assert unreadable(node) == {"live", "log"}
