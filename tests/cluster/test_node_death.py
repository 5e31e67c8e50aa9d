"""A node dies or stalls: its sessions leave presence, and the others go on."""

import asyncio

import pytest
from nacl.signing import SigningKey
from redis.asyncio import Redis

from tests.support.nodes import NodeProcess, cluster
from tests.support.peer import Peer, Peers, Refused
from tests.support.redis_server import RedisProcess
from tests.support.traffic import Traffic, assert_all_delivered, more_is_acknowledged, posting
from tests.support.v2_peer import V2Peers
from tests.support.waiting import pause, wait_until

SUPERSEDED = "unauthorized: session superseded by a newer connection for the same session path"
GONE_WITHIN = 10.0
"""The promised time until a crashed node's sessions are gone from presence everywhere, in seconds."""
NOTICED_AFTER = 6
"""The seconds without a heartbeat after which the others evict a node."""


@pytest.fixture
async def traffic(nodes: list[NodeProcess], peers: Peers) -> Traffic:
    return await Traffic.on(nodes, peers)


async def shows(observer: Peer, present: list[str]) -> bool:
    """Tell whether an observer sees exactly these sessions, in all places where presence is shown."""
    return await observer.who() == present and await observer.who("ops") == present


async def test_the_sessions_of_a_killed_node_and_no_others_leave_presence(
    nodes: list[NodeProcess], traffic: Traffic, redis_process: RedisProcess
) -> None:
    """`who` must not wait for the dead node, and sessions of the other nodes must not notice its death."""
    dead = traffic.paths_on(0)
    rest = sorted(set(traffic.paths) - dead)
    living = traffic.posters[1:]
    async with posting(traffic.posters):
        await more_is_acknowledged(traffic.posters)
        await nodes[0].kill()
        async with asyncio.timeout(GONE_WITHIN):
            for observer in traffic.readers[1:]:
                await wait_until(lambda o=observer: shows(o, rest), timeout=GONE_WITHIN, what="its sessions are gone")  # type: ignore[misc]
        await more_is_acknowledged(living)
    assert [poster.refusals for poster in living] == [[], []]
    assert max(poster.slowest for poster in living) < NOTICED_AFTER
    await assert_all_delivered(traffic.posters, traffic.readers[1:], traffic.readers[1], "ops")
    await wait_until(lambda: _nodes_in(redis_process, 2), what="the dead node's keys in Redis are gone")
    assert await shows(traffic.readers[1], rest)


async def test_users_of_a_killed_node_log_in_at_another_at_once(
    nodes: list[NodeProcess], traffic: Traffic, peers: Peers, redis_process: RedisProcess
) -> None:
    """A login does not wait for the eviction of the dead node, and the eviction must not remove the new session."""
    async with posting(traffic.posters[1:]):
        await nodes[0].kill()
        async with asyncio.timeout(NOTICED_AFTER):
            back = peers.keep(await Peer.login(nodes[1].url, traffic.keys[0], "main"))
            await back.join("ops")
        assert back.path == traffic.readers[0].path
        await wait_until(lambda: _nodes_in(redis_process, 2), timeout=GONE_WITHIN, what="the dead node was evicted")
        present = sorted((set(traffic.paths) - traffic.paths_on(0)) | {str(back.path)})
        for observer in traffic.readers[1:]:
            assert await shows(observer, present)
        before = len(back.messages)
        await traffic.readers[2].whisper(back.path, "hi")
        await wait_until(lambda: back.whispers and len(back.messages) > before, what="the new session gets everything")


async def test_a_node_evicted_while_it_was_stopped_joins_again(
    nodes: list[NodeProcess], traffic: Traffic, peers: Peers
) -> None:
    """A machine that was asleep or starved was evicted meanwhile. Its sessions must be complete when it wakes up."""
    awake = traffic.posters[0]
    async with posting(traffic.posters[1:]):
        await more_is_acknowledged(traffic.posters[1:])
        nodes[0].pause()
        told = await asyncio.gather(*(_told(reader, awake.peer, "late") for reader in traffic.readers[1:]))
        assert told == ["internal error"] * 2, "what nobody has taken was acknowledged"
        stalled = traffic.paths_on(0)
        rest = sorted(set(traffic.paths) - stalled)
        await wait_until(lambda: shows(traffic.readers[1], rest), timeout=GONE_WITHIN, what="its sessions are gone")
        successor = peers.keep(await Peer.login(nodes[2].url, traffic.keys[0], "main"))
        await successor.join("ops")
        await pause(4)  # twelve in all: longer than any lease
        nodes[0].resume()
        assert await traffic.readers[0].wait_closed() == SUPERSEDED
        for observer in traffic.readers[1:]:
            await wait_until(lambda o=observer: shows(o, traffic.paths), what="every session is present again, once")  # type: ignore[misc]
        await more_is_acknowledged(traffic.posters[1:])
    async with posting([awake]):
        await more_is_acknowledged([awake], 5)
    await assert_all_delivered(traffic.posters, traffic.readers[1:], traffic.readers[1], "ops")
    posted = [body for body in traffic.readers[1].bodies if not body.startswith("poster0 ")]
    assert awake.peer.bodies == posted, "a session of the stopped node has missed nothing"
    await traffic.readers[1].whisper(awake.peer.path, "hi")
    await wait_until(lambda: len(awake.peer.whispers) == 3, what="a session of the stopped node gets all whispers")


async def test_a_session_of_a_killed_node_resumes_at_another(nodes: list[NodeProcess]) -> None:
    """Its last position is enough: what was posted meanwhile follows, once and in order."""
    key = SigningKey.generate()
    async with V2Peers() as peers:
        ann = await peers.register(nodes[1].url, "ann")
        await ann.create("ops")
        await ann.join("ops")
        bob = await peers.login(nodes[0].url, key, register=("bob", "laptop"))
        await bob.join("ops")
        acknowledged = [await ann.post("ops", "before")]
        await wait_until(lambda: bob.ids("ops") == acknowledged, what="bob gets it")
        await nodes[0].kill()
        acknowledged += [await ann.post("ops", f"meanwhile {i}") for i in range(100)]
        bob = await peers.login(nodes[2].url, key)
        assert (await bob.join("ops", since=acknowledged[0]))["recovered"] is True
        acknowledged.append(await ann.post("ops", "after"))
        await wait_until(lambda: len(bob.ids("ops")) >= len(acknowledged) - 1, what="bob has got all")
        assert bob.ids("ops") == acknowledged[1:]
        assert bob.of("gap") == []


async def test_no_sessions_are_left_after_the_whole_cluster_was_killed(redis_process: RedisProcess) -> None:
    """After a power cut no node is left that could evict the others; the new nodes evict all of the old ones."""
    peers = Peers()
    key = SigningKey.generate()
    async with cluster(redis_process.url) as nodes:
        first = peers.keep(await Peer.login(nodes[0].url, key, "main", register=("ann", "laptop")))
        await first.create("ops")
        await first.join("ops")
        for i in range(3):
            user = await peers.register(nodes[i].url, f"user{i}")
            await user.join("ops")
        await asyncio.gather(*(node.kill() for node in nodes))
    async with cluster(redis_process.url) as nodes:
        ann = peers.keep(await Peer.login(nodes[1].url, key, "main"))
        await ann.join("ops")
        async with asyncio.timeout(GONE_WITHIN):
            await wait_until(lambda: shows(ann, [str(ann.path)]), timeout=GONE_WITHIN, what="the sessions are gone")
        await wait_until(lambda: _nodes_in(redis_process, 3), what="the dead nodes' keys in Redis are gone")
        assert await shows(ann, [str(ann.path)])
        await peers.close()


async def _told(sender: Peer, target: Peer, body: str) -> str:
    """Whisper, and return `ok` or the word by which v1 refuses."""
    try:
        await sender.whisper(target.path, body)
    except Refused as refused:
        return str(refused).partition(":")[0]
    return "ok"


async def _nodes_in(server: RedisProcess, count: int) -> bool:
    """Tell whether Redis holds this number of nodes, and no key of any other but inboxes that were not read."""
    async with Redis.from_url(server.url, decode_responses=True) as client:
        nodes = set(await client.zrange("conclave:{nodes}", 0, -1))
        keys = [key async for key in client.scan_iter("conclave:{n:*") if not key.endswith(":inbox")]
        named = {key.split("{n:")[1].split("}")[0] for key in keys}
        subscribers = [key async for key in client.scan_iter("conclave:{c:*:subs")]
        entries = [value for key in subscribers for value in (await client.hgetall(key)).values()]
    return len(nodes) == count and named <= nodes and all(value.split()[0] in nodes for value in entries)
