"""History: pages in both directions, exact positions, bounds in rows and in bytes."""

import json
from typing import Any

import pytest
from redis import Redis

from conclave.protocol.limits import FRAME_BYTES
from relay.model.message import PAGE_BYTES, order
from tests.support.nodes import running_node
from tests.support.peer import Peer
from tests.support.v2_peer import V2Peer, V2Peers
from tests.support.waiting import wait_until


@pytest.fixture
async def ann(url: str, v2_peers: V2Peers) -> V2Peer:
    ann = await v2_peers.register(url, "ann")
    await ann.create("ops")
    await ann.join("ops")
    return ann


async def page(ann: V2Peer, **where: Any) -> tuple[list[str], bool]:
    answer = await ann.ask("history", channel="ops", **where)
    assert not answer.get("lost"), answer
    return [row["id"] for row in answer["messages"]], answer["more"]


@pytest.mark.parametrize("forwards", [True, False])
async def test_a_page_is_bounded_in_bytes_and_never_empty(redis_url: str, v2_peers: V2Peers, forwards: bool) -> None:
    """In bytes of JSON, which may be six times as many as were kept; one message at least."""
    async with running_node(redis_url, max_message_bytes=2 * 1024 * 1024) as url:
        ann = await v2_peers.register(url, "ann")
        await ann.create("ops")
        await ann.join("ops")
        said = [await ann.post("ops", "\x01" * size) for size in (100, 200_000, 300_000, 1_500_000, 400_000, 7)]
        read: list[str] = []
        where: dict[str, Any] = {"after": "0-0"} if forwards else {}
        more = True
        while more:
            answer = await ann.ask("history", channel="ops", limit=500, **where)
            rows = answer["messages"]
            assert rows
            assert len(rows) == 1 or len(json.dumps(rows)) < PAGE_BYTES + 1000
            ids = [row["id"] for row in rows]
            read = read + ids if forwards else ids + read
            where = {"after": ids[-1]} if forwards else {"before": ids[0]}
            more = answer["more"]
        assert read == said
        await v2_peers.close()


async def test_the_longest_message_in_its_longest_form_is_delivered_and_read(redis_url: str, v2_peers: V2Peers) -> None:
    """A byte of v1 may take six in JSON: the outbox and the page of history have room for it."""
    longest = 2560 * 1024
    async with running_node(redis_url, max_message_bytes=longest) as url:
        ann, bob = await v2_peers.register(url, "ann"), await v2_peers.register(url, "bob")
        await ann.create("ops")
        await bob.join("ops")
        old = await Peer.register(url, "old")
        await old.join("ops")
        await old.post("ops", "\x01" * longest)
        await wait_until(lambda: bob.ids("ops") or bob.is_closed, what="bob gets it")
        (row,) = (await bob.ask("history", channel="ops"))["messages"]
        assert bob.ids("ops") == [row["id"]]
        assert len(json.dumps(row)) < FRAME_BYTES
        await old.close()
        await v2_peers.close()


async def test_a_page_tells_what_is_lost_before_it(ann: V2Peer, redis_url: str) -> None:
    """For a page from a position or from a time, not for the newest page."""
    said = [await ann.post("ops", str(i)) for i in range(10)]
    ms = [order(each)[0] for each in said]
    with Redis.from_url(redis_url) as store:
        (key,) = store.scan_iter("conclave:{c:*}:log")
        store.xtrim(key, minid=said[6], approximate=False)
    for where, lost in (
        ({"after": said[2]}, True),
        ({"after": "0-0"}, True),
        ({"after_ts": ms[0] - 1}, True),
        ({"after": said[6]}, False),
        ({"after": said[-1]}, False),
        ({"after_ts": ms[-1]}, False),
        ({}, False),
        ({"before": said[8]}, False),
    ):
        answer = await ann.ask("history", channel="ops", **where)
        assert answer.get("lost", False) is lost, where
        expected = said[6:8] if "before" in where else said[6:]
        if where.get("after") != said[-1] and "after_ts" not in where:
            assert [row["id"] for row in answer["messages"]][-len(expected) :] == expected[-len(answer["messages"]) :]


async def test_history_after_the_loss_of_the_channel_is_refused(url: str, ann: V2Peer, v2_peers: V2Peers) -> None:
    """Also that of the time in the channel."""
    bob = await v2_peers.register(url, "bob")
    await bob.join("ops")
    await ann.post("ops", "hi")
    assert len((await bob.ask("history", channel="ops"))["messages"]) == 1
    await ann.ask("kick", channel="ops", target="bob")
    assert await bob.refusal("history", channel="ops") == "unauthorized: not a member of channel `ops`"
