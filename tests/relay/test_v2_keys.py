"""A retried send with the same key is one message, across connections and nodes."""

import asyncio
from typing import Any

import pytest
from nacl.signing import SigningKey
from redis import Redis

from relay.redis.channel_log import KEY_MS
from relay.redis.scripts import INBOX_SEND, POST
from tests.support.blocking import BlockedCommand
from tests.support.nodes import node_object, running_node
from tests.support.v2_peer import V2Peer, V2Peers
from tests.support.waiting import wait_until


@pytest.fixture
async def two(redis_url: str, v2_peers: V2Peers) -> Any:
    """Ann and bob, each on a node of their own."""
    async with running_node(redis_url) as one, running_node(redis_url) as other:
        ann, bob = await v2_peers.register(one, "ann"), await v2_peers.register(other, "bob")
        await ann.create("ops")
        for peer in (ann, bob):
            await peer.join("ops")
        yield ann, bob
        await v2_peers.close()


async def send(peer: V2Peer, text: str, key: str | None = "k", channel: str = "ops") -> Any:
    return await peer.ask("send", channel=channel, body={"text": text}, **({} if key is None else {"key": key}))


async def test_a_key_expires(two: tuple[V2Peer, V2Peer], redis_url: str) -> None:
    """After five minutes, by the store itself."""
    ann, bob = two
    await send(ann, "a")
    await ann.ask("whisper", to=bob.path, body={"text": "w"}, key="k")
    with Redis.from_url(redis_url) as store:
        keys = list(store.scan_iter("*:sent:*"))
        assert len(keys) == 2
        for key in keys:
            assert KEY_MS - 60_000 < store.pttl(key) <= KEY_MS
            store.delete(key)
    await send(ann, "a")
    assert len(await ann.history("ops")) == 2


async def test_a_retry_after_the_loss_of_the_channel_is_refused(two: tuple[V2Peer, V2Peer]) -> None:
    """The check of the membership comes before the key."""
    ann, bob = two
    await send(bob, "a")
    await ann.ask("ban", channel="ops", user="bob")
    assert await bob.refusal("send", channel="ops", body={"text": "a"}, key="k") == (
        "unauthorized: not a member of channel `ops`"
    )


async def test_a_send_whose_reply_was_lost_is_not_repeated(redis_url: str, v2_peers: V2Peers) -> None:
    """The connection ends between the post and its reply: the retry gets the reply."""
    key = SigningKey.generate()
    async with node_object(redis_url) as node:
        url = f"ws://{node.address}/"
        ann = await v2_peers.login(url, key, register=("ann", "laptop"))
        await ann.create("ops")
        await ann.join("ops")
        blocked = BlockedCommand(node, POST, answers=True)
        sending = asyncio.create_task(send(ann, "once"))
        await blocked.reached.wait()
        await ann.cut()
        blocked.release()
        ann = await v2_peers.login(url, key)
        await ann.join("ops")
        sent = await send(ann, "once")
        sending.cancel()
        assert [(row["id"], row["body"]["text"]) for row in await ann.history("ops")] == [(sent["id"], "once")]
        await v2_peers.close()


async def test_a_whisper_that_may_have_been_sent_is_delivered_once(redis_url: str, v2_peers: V2Peers) -> None:
    """The node does not know if it was sent and sends it again; the session recognises its id."""
    key = SigningKey.generate()
    async with node_object(redis_url) as node:
        url = f"ws://{node.address}/"
        ann = await v2_peers.login(url, key, register=("ann", "laptop"))
        again, bob = await v2_peers.login(url, key, "second"), await v2_peers.register(url, "bob")
        blocked = BlockedCommand(node, INBOX_SEND, answers=True)
        asking = [asyncio.create_task(ann.ask("whisper", to=bob.path, body={"text": "1"}, key="k"))]
        await blocked.reached.wait()
        await wait_until(lambda: bob.of("whisper"), what="it was sent")
        asking.append(asyncio.create_task(again.ask("whisper", to=bob.path, body={"text": "1"}, key="k")))
        blocked.release()
        first, second = await asyncio.gather(*asking)
        await ann.ask("whisper", to=bob.path, body={"text": "2"})
        await wait_until(lambda: bob.of("whisper")[-1]["body"] == {"text": "2"}, what="the next one arrives")
        assert [each["body"]["text"] for each in bob.of("whisper")] == ["1", "2"]
        assert first == second
        await v2_peers.close()
