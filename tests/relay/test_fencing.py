"""Fencing: what a session still sends that has lost its path, its key or its node is not carried out.

In the tests with `two` the signal that would end the session is on its way: nobody acts on signals.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Coroutine
from typing import Any, NamedTuple
from unittest.mock import AsyncMock

import pytest
from nacl.signing import SigningKey
from redis import Redis as SyncRedis
from redis.asyncio import Redis

from conclave.protocol import close_texts
from relay.app.node import Node
from relay.redis import scripts
from relay.redis.keys import Keys
from relay.redis.signals import Supersede, encoded
from relay.sessions.registry import SessionRegistry
from tests.support.nodes import node_object
from tests.support.v2_peer import V2Peer, V2Peers
from tests.support.waiting import wait_until

SUPERSEDED = f"unauthorized: {close_texts.SUPERSEDED}"


class Two(NamedTuple):
    """Ann on one node, in `ops`, and bob on the other one, in `ops`, too."""

    one: Node
    other: Node
    peers: V2Peers
    key: SigningKey
    ann: V2Peer
    bob: V2Peer
    redis: Redis

    async def newer_ann(self) -> V2Peer:
        """Log in on ann's path at the other node."""
        return self.peers.keep(await V2Peer.login(url(self.other), self.key))

    async def listed(self) -> str:
        """Return the key of the subscribers of `ops`."""
        (key,) = [key async for key in self.redis.scan_iter("conclave:{c:*:subs")]
        return str(key)

    async def bury(self) -> None:
        """Remove ann's node from the subscribers, as a janitor does that takes it for dead."""
        keys = await self.listed(), (await self.listed()).replace(":subs", ":head")
        await self.redis.eval(scripts.SUBSCRIBERS_BURY.text, 2, *keys, self.one.name, 0, 500)


async def posts_again(peer: V2Peer) -> bool:
    return "error" not in await peer.raw('{"id": 99, "op": "send", "channel": "ops", "body": {"text": "again"}}', 99)


def url(node: Node) -> str:
    return f"ws://{node.address}/"


@pytest.fixture
async def two(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Two]:
    monkeypatch.setattr(SessionRegistry, "handle_signal", lambda *_: True)
    key = SigningKey.generate()
    async with (
        node_object(redis_url) as one,
        node_object(redis_url) as other,
        V2Peers() as peers,
        Redis.from_url(redis_url, decode_responses=True) as redis,
    ):
        ann = peers.keep(await V2Peer.login(url(one), key, register=("ann", "laptop")))
        bob = await peers.register(url(other), "bob")
        await ann.create("ops")
        await ann.join("ops")
        await bob.join("ops")
        yield Two(one, other, peers, key, ann, bob, redis)


async def test_a_superseded_session_cannot_post_where_its_successor_has_joined(two: Two) -> None:
    """Two sessions on one path would both be believed."""
    newer = await two.newer_ann()
    await newer.join("ops")
    assert await two.ann.refusal("send", channel="ops", body={"text": "late"}) == SUPERSEDED
    await newer.post("ops", "new")
    await wait_until(lambda: two.bob.texts("ops") == ["new"], what="bob gets the successor's message alone")
    await wait_until(lambda: two.ann.is_closed, what="the superseded session is closed")


async def test_a_superseded_session_cannot_come_back_into_a_channel_of_its_successor(two: Two) -> None:
    """Its join may have waited in the socket of a node that was stopped."""
    await two.ann.create("dev")
    newer = await two.newer_ann()
    await newer.join("dev")
    assert await two.ann.refusal("join", channel="dev") == SUPERSEDED
    await wait_until(lambda: two.ann.is_closed, what="the superseded session is closed")
    await newer.post("dev", "new")


async def test_a_session_that_a_failover_took_from_the_list_posts_and_is_listed_again(
    two: Two, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A replica that lacks the last writes was promoted: nothing that the client can know of."""
    monkeypatch.setattr(two.one.parts.channel_log, "keep_subscribers", AsyncMock())  # it comes later
    await two.redis.hdel(await two.listed(), next(iter(two.one.parts.sessions)).connection)
    await two.redis.client_kill_filter(_type="normal", skipme=True)
    await wait_until(lambda: posts_again(two.ann), what="the node has a connection again, and the session posts")
    assert await two.redis.hlen(await two.listed()) == 2


async def test_posts_in_flight_keep_their_order_when_their_session_is_listed_again(two: Two) -> None:
    """The first of them finds that the session is not listed, and the others must not overtake it."""
    await two.bury()
    texts = [str(number) for number in range(20)]
    await asyncio.gather(*(two.ann.post("ops", text) for text in texts))
    await wait_until(lambda: len(two.bob.texts("ops")) == len(texts), what="bob gets all of them")
    assert two.bob.texts("ops") == texts


async def test_a_listing_between_two_posts_does_not_have_the_second_overtake_the_first(
    two: Two, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The node lists its sessions again after an interruption, while posts are on their way."""
    (session,) = two.one.parts.sessions
    channel_log, records = two.one.parts.channel_log, two.one.parts.records
    append = channel_log.append
    listings: list[Coroutine[None, None, None]] = []

    def append_then_list(*args: Any, **options: Any) -> "asyncio.Future[Any]":
        reply = append(*args, **options)
        if not listings:
            listings.append(records._list([session]))
            listings[0].send(None)  # it sends its commands now
        return reply

    await two.bury()
    monkeypatch.setattr(channel_log, "append", append_then_list)
    await asyncio.gather(*(two.ann.post("ops", text) for text in ("first", "second", "third")))
    await wait_until(lambda: len(two.bob.events) == 3, what="bob gets all of them")
    assert two.bob.texts("ops") == ["first", "second", "third"]
    listings[0].close()


async def test_the_sessions_of_an_evicted_node_post_again_when_it_has_joined_again(two: Two) -> None:
    """Until then they are in no list of sessions, and a later login on their path finds nobody to supersede."""
    await two.redis.zadd("conclave:{nodes}", {two.one.name: -1})
    await two.bury()
    refusal = await two.ann.refusal("send", channel="ops", body={"text": "too early"})
    assert refusal.startswith("unavailable: ")
    former = two.one.name
    await wait_until(lambda: two.one.name != former, what="the node has joined again", timeout=10)

    await wait_until(lambda: posts_again(two.ann), what="the session posts")


async def test_a_node_that_was_held_up_reads_its_inbox_before_it_carries_requests_out(redis_url: str) -> None:
    """A stopped process finds the requests of its clients and a supersede of one of them, both in its sockets."""
    async with node_object(redis_url) as node, V2Peers() as peers:
        ann, bob = await peers.register(url(node), "ann"), await peers.register(url(node), "bob")
        await ann.create("ops")
        await ann.join("ops")
        await bob.join("ops")
        connection = next(session.connection for session in node.parts.sessions if session.path.user == "ann")
        await wait_until(lambda: node.parts.inbox.is_current, what="the inbox is read")
        for request in ('"op": "send", "channel": "ops"', f'"op": "whisper", "to": "{bob.path}"'):
            await ann.ws.send_str(f'{{"id": 1, {request}, "body": {{"text": "late"}}}}')
        with SyncRedis.from_url(redis_url) as store:
            time.sleep(1.2)  # noqa: ASYNC251 - nothing on this event loop goes on
            store.xadd(Keys("conclave").inbox(node.name), {"s": encoded(Supersede(connection))})
        code, _ = await ann.wait_closed()
        assert code == 4001
        await bob.post("ops", "afterwards")
        assert [row["body"]["text"] for row in await bob.history("ops")] == ["afterwards"]
        assert bob.of("whisper") == []


async def test_requests_are_refused_while_the_inbox_cannot_be_read(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A session that was superseded long ago would go on, and nobody would know."""
    monkeypatch.setattr("relay.redis.inbox._CATCH_UP_SECONDS", 0.3)
    async with node_object(redis_url) as node, V2Peers() as peers:
        ann = await peers.register(url(node), "ann")
        await ann.create("ops")
        await ann.join("ops")
        with SyncRedis.from_url(redis_url) as store:
            store.execute_command("ACL", "SETUSER", "default", "-xread")
            try:
                await wait_until(lambda: not node.parts.inbox.is_current, what="the inbox is not read any more")
                refusal = await ann.refusal("send", channel="ops", body={"text": "hello"})
                assert refusal.startswith("unavailable: ")
            finally:
                store.execute_command("ACL", "SETUSER", "default", "+xread")
        await wait_until(lambda: node.parts.inbox.is_current, what="the inbox is read again")
        await ann.post("ops", "hello")
