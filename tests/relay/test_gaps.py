"""Live sessions while Redis, or the network to it, fails: no loss, no repeat, one order, or a gap that is reported."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest
from redis import Redis

from conclave.model import Plain
from conclave.protocol.v1 import frames
from relay.redis.keys import Keys
from tests.support.blocking import subscriptions_blocked
from tests.support.nodes import running_node
from tests.support.peer import Peer, Peers, Refused, text
from tests.support.redis_server import RedisProcess
from tests.support.waiting import wait_until

AWAY = "internal error: the relay cannot reach its store; try again in a few seconds"
KEYS = Keys("conclave")


async def get(node: str, path: str) -> tuple[int, str]:
    url = node.replace("ws://", "http://").rstrip("/") + path
    async with aiohttp.ClientSession() as http, http.get(url) as response:
        return response.status, await response.text()


async def status(node: str, path: str) -> int:
    return (await get(node, path))[0]


async def counted(node: str, metric: str) -> float:
    found = re.search(rf"^{metric}_total (\S+)$", (await get(node, "/metrics"))[1], re.MULTILINE)
    assert found is not None
    return float(found[1])


@asynccontextmanager
async def two_sessions(pair: tuple[str, str], peers: Peers) -> AsyncIterator[tuple[Peer, Peer]]:
    """Ann and bob in a channel, on two nodes, with live delivery."""
    ann, bob = await peers.register(pair[0], "ann"), await peers.register(pair[1], "bob")
    await ann.create("ops")
    await ann.join("ops")
    await bob.join("ops")
    await ann.post("ops", "before")
    await wait_until(lambda: bob.bodies, what="live delivery works")
    yield ann, bob


async def test_messages_of_an_interruption_arrive_without_a_further_message(
    pair: tuple[str, str], redis_url: str, peers: Peers
) -> None:
    """The last message before a silence is not left in the log until the next one."""
    async with two_sessions(pair, peers) as (ann, bob):
        with subscriptions_blocked(redis_url):
            for n in range(20):
                await ann.post("ops", str(n))
            assert bob.bodies == ["before"]
        await wait_until(lambda: len(bob.bodies) == 21, what="the gap was filled")
        await ann.post("ops", "after")
        await wait_until(lambda: len(bob.bodies) == 22, what="live delivery goes on")
        assert bob.bodies == ["before", *map(str, range(20)), "after"]
        assert await counted(pair[1], "conclave_messages_refilled") >= 20
        assert await counted(pair[1], "conclave_history_lost") == 0


async def test_cutting_the_subscribers_again_and_again_loses_and_repeats_nothing(
    pair: tuple[str, str], redis_url: str, peers: Peers
) -> None:
    """While sessions on both nodes post, and other requests go on."""
    async with two_sessions(pair, peers) as (ann, bob):
        reader = await peers.register(pair[0], "reader")
        await reader.join("ops")
        missed = len(await reader.history("ops"))

        async def write(writer: Peer) -> None:
            for n in range(150):
                await writer.post("ops", f"{writer.path.user}:{n}")

        async def cut() -> None:
            with Redis.from_url(redis_url) as store:
                for share in range(1, 8):
                    await wait_until(lambda share=share: len(ann.bodies) > share * 15, what="posting went on")  # type: ignore[misc]
                    await wait_until(lambda: store.client_kill_filter(_type="pubsub"), what="one was cut")

        await asyncio.gather(write(ann), write(bob), cut())
        await wait_until(lambda: len(reader.bodies) >= 300, what="everything arrived")
        history = await reader.history("ops")
        assert reader.bodies == history[missed:]
        assert ann.bodies == [body for body in history if body.startswith("bob:")]
        assert bob.bodies == [body for body in history if not body.startswith("bob:")]
        assert await counted(pair[0], "conclave_history_lost") == 0


@pytest.mark.parametrize(("command", "left"), [(("XTRIM", "MAXLEN", "2"), ["3", "4"]), (("DEL",), [])])
async def test_a_gap_that_the_log_cannot_fill_is_counted_and_delivery_goes_on(
    pair: tuple[str, str], redis_url: str, peers: Peers, command: tuple[str, ...], left: list[str]
) -> None:
    """The remaining messages arrive in order; the loss is visible to the operator."""
    async with two_sessions(pair, peers) as (ann, bob):
        with subscriptions_blocked(redis_url) as store:
            for n in range(5):
                await ann.post("ops", str(n))
            (log,) = store.keys("*:log")
            store.execute_command(command[0], log, *command[1:])  # type: ignore[no-untyped-call]
        await wait_until(lambda: is_counted(pair[1]), what="the loss is counted")
        await ann.post("ops", "after")
        await wait_until(lambda: "after" in bob.bodies, what="delivery goes on")
        assert bob.bodies == ["before", *left, "after"]


async def is_counted(node: str) -> bool:
    return await counted(node, "conclave_history_lost") >= 1


async def test_whispers_survive_cut_connections(pair: tuple[str, str], redis_url: str, peers: Peers) -> None:
    """A signal stays in the node's inbox until it is read, once and in order, whatever happens to the connection."""
    async with two_sessions(pair, peers) as (ann, bob):
        acknowledged = []
        with Redis.from_url(redis_url) as store:
            for n in range(60):
                if n % 15 == 7:
                    store.client_kill_filter(_type="normal", skipme=True)
                try:
                    await ann.whisper(bob.path, str(n))
                except Refused:
                    await wait_until(lambda: is_ready(pair[0]), what="the node has recovered")
                else:
                    acknowledged.append(str(n))
        await wait_until(lambda: has_whisper(bob, acknowledged[-1]), what="the last whisper arrived")
        received = [text(whisper.payload) for whisper in bob.whispers]
        assert received == sorted(set(received), key=int)
        assert set(acknowledged) <= set(received)


async def is_ready(node: str) -> bool:
    return await status(node, "/ready") == 200


def has_whisper(peer: Peer, body: str) -> bool:
    return any(text(whisper.payload) == body for whisper in peer.whispers)


async def test_sessions_outlive_a_restart_of_redis(redis_process: RedisProcess, peers: Peers) -> None:
    """Requests are refused at once and say why, the node says that it is not ready, and all resumes by itself."""
    url = redis_process.url
    async with (
        running_node(url) as one,
        running_node(url) as other,
        two_sessions((one, other), peers) as (ann, bob),
    ):
        acknowledged = ["before"]
        redis_process.kill()
        await wait_until(lambda: is_unready(one, other), what="the nodes have noticed")
        say = frames.ChannelMsg("ops", ann.path, Plain("lost"))
        for request in (say, frames.Who(), frames.ListChannels(), frames.Join("ops"), frames.ReadSince("ops", 0)):
            async with asyncio.timeout(30):
                assert await ann.refusal(request) == AWAY
        assert await get(one, "/ready") == (503, "Redis is not reachable")
        assert await status(one, "/health") == 200
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            await Peer.dial(one)
        assert caught.value.status == 503
        await ann.ask(frames.Ping(), frames.Pong)
        await redis_process.start()
        await wait_until(lambda: are_ready(one, other), what="the nodes are back")
        for n in range(10):
            await ann.post("ops", str(n))
            acknowledged.append(str(n))
        await wait_until(lambda: len(bob.bodies) >= len(acknowledged), what="delivery has resumed")
        assert bob.bodies == acknowledged
        assert await bob.history("ops") == acknowledged
        assert await bob.who("ops") == ["ann/laptop/main", "bob/laptop/main"]
        await ann.whisper(bob.path, "still there")
        await wait_until(lambda: bob.whispers, what="the whisper arrived")
        cid = await peers.register(one, "cid")
        await cid.join("ops")
        await peers.close()


async def is_unready(*nodes: str) -> bool:
    return [await status(node, "/ready") for node in nodes] == [503] * len(nodes)


async def are_ready(*nodes: str) -> bool:
    return [await status(node, "/ready") for node in nodes] == [200] * len(nodes)


async def test_what_was_acknowledged_around_a_restart_arrives_once_and_in_order(
    redis_process: RedisProcess, peers: Peers
) -> None:
    """Killed in the middle of the talk: a post may be refused, but what was acknowledged is not lost."""
    url = redis_process.url
    async with (
        running_node(url) as one,
        running_node(url) as other,
        two_sessions((one, other), peers) as (ann, bob),
    ):
        acknowledged = ["before"]

        async def write() -> None:
            for n in range(400):
                try:
                    await ann.post("ops", str(n))
                except Refused:
                    await wait_until(lambda: are_ready(one, other), timeout=20, what="the nodes are back")
                else:
                    acknowledged.append(str(n))

        writing = asyncio.create_task(write())
        for share in (50, 200):
            await wait_until(lambda share=share: len(acknowledged) > share, what="posting went on")  # type: ignore[misc]
            await redis_process.restart()
        await writing
        await ann.post("ops", "last")
        await wait_until(lambda: bob.bodies[-1] == "last", what="the last message arrived")
        history = await bob.history("ops")
        assert bob.bodies == history
        assert [body for body in history if body in {*acknowledged, "last"}] == [*acknowledged, "last"]
        await peers.close()


async def test_a_live_message_of_a_later_format_is_read_from_the_log(
    pair: tuple[str, str], redis_url: str, peers: Peers
) -> None:
    """A rolling update may change what nodes publish; the nodes of this version go on, and keep the order."""
    async with two_sessions(pair, peers) as (ann, bob):
        with Redis.from_url(redis_url) as store:
            (topic,) = [each for each in store.pubsub_channels() if each.endswith(b":live")]
            (log,) = store.keys("*:log")
            (head,) = store.keys("*:head")
            (row,) = store.xrange(log)
            fields = {**row[1], b"p": row[1][b"p"].replace(b"before", b"second")}
            store.hset(head, "tip", store.xadd(log, fields))
            for data in (b"v2 whatever", b"\xff\0\xff\0x\0y\0z", b"5-0\0", b"5-0\0x\0not a number\0from\0payload"):
                store.publish(topic, data)
        await wait_until(lambda: bob.bodies == ["before", "second"], what="bob gets it from the log")
        await ann.post("ops", "third")
        await wait_until(lambda: bob.bodies == ["before", "second", "third"], what="live delivery goes on")
    assert all([await is_ready(url) for url in pair])


async def test_a_server_that_hangs_is_given_up_and_found_again(redis_process: RedisProcess, peers: Peers) -> None:
    """Connections that stay open without an answer must not hold requests for ever."""
    async with running_node(redis_process.url, redis_timeout=0.3) as node:
        ann = await peers.register(node, "ann")
        redis_process.pause()
        assert await ann.refusal(frames.Who()) == AWAY
        await wait_until(lambda: is_unready(node), what="the silence lasts, and is an outage")
        redis_process.resume()
        await wait_until(lambda: is_ready(node), what="the node is back")
        await wait_until(lambda: is_here(ann), what="the session is present")
        await peers.close()


async def is_here(peer: Peer) -> bool:
    return str(peer.path) in await peer.who()
