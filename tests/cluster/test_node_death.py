"""A node dies or stalls: its sessions leave, the others talk on."""

import asyncio

import pytest
from nacl.signing import SigningKey
from redis.asyncio import Redis

from tests.support.nodes import NodeProcess, cluster
from tests.support.peer import Peer, Peers
from tests.support.redis_server import RedisProcess
from tests.support.traffic import Talker, everybody_heard, more_is_said, talking
from tests.support.waiting import pause, wait_until

SUPERSEDED = "unauthorized: session superseded by a newer connection for the same session path"
GONE_WITHIN = 10.0
"""The promised time until a crashed node's sessions are gone from presence everywhere, in seconds."""
NOTICED_AFTER = 6
"""The seconds without a heartbeat after which the others evict a node."""


class Village:
    """On each of three nodes somebody who talks and somebody who listens, all of them in one channel."""

    def __init__(self, nodes: list[NodeProcess], peers: Peers) -> None:
        self._nodes = nodes
        self._peers = peers
        self.talkers: list[Talker] = []
        self.listeners: list[Peer] = []
        self.keys: list[SigningKey] = []

    async def settle(self) -> None:
        for i, node in enumerate(self._nodes):
            self.keys.append(SigningKey.generate())
            listener = await Peer.login(node.url, self.keys[i], "den", register=(f"listener{i}", "laptop"))
            self.listeners.append(self._peers.keep(listener))
            talker = await self._peers.register(node.url, f"talker{i}")
            self.talkers.append(Talker(talker, "plaza", f"talker{i}"))
        await self.listeners[0].create("plaza")
        for peer in (*self.listeners, *(talker.peer for talker in self.talkers)):
            await peer.join("plaza")

    @property
    def paths(self) -> list[str]:
        return sorted([*(str(p.path) for p in self.listeners), *(str(t.peer.path) for t in self.talkers)])

    def paths_on(self, i: int) -> set[str]:
        return {str(self.listeners[i].path), str(self.talkers[i].peer.path)}


@pytest.fixture
async def village(nodes: list[NodeProcess], peers: Peers) -> Village:
    village = Village(nodes, peers)
    await village.settle()
    return village


async def shows(observer: Peer, present: list[str]) -> bool:
    """Tell whether an observer sees exactly these sessions, in all places where presence is shown."""
    return await observer.who() == present and await observer.who("plaza") == present


async def test_killed_node_takes_its_sessions_along_and_nobody_else(
    nodes: list[NodeProcess], village: Village, redis_process: RedisProcess
) -> None:
    """`who` must not wait for the dead node, and sessions of the other nodes must not notice its death."""
    ghosts = village.paths_on(0)
    rest = sorted(set(village.paths) - ghosts)
    living = village.talkers[1:]
    async with talking(village.talkers):
        await more_is_said(village.talkers)
        await nodes[0].kill()
        async with asyncio.timeout(GONE_WITHIN):
            for observer in village.listeners[1:]:
                await wait_until(lambda o=observer: shows(o, rest), timeout=GONE_WITHIN, what="the ghosts are gone")  # type: ignore[misc]
        await more_is_said(living)
    assert [talker.refusals for talker in living] == [[], []]
    assert max(talker.slowest for talker in living) < NOTICED_AFTER
    await everybody_heard(village.talkers, village.listeners[1:], village.listeners[1], "plaza")
    await wait_until(lambda: _nodes_in(redis_process, 2), what="what the dead node had in Redis was cleared away")
    assert await shows(village.listeners[1], rest)


async def test_users_of_a_killed_node_are_back_at_once_elsewhere(
    nodes: list[NodeProcess], village: Village, peers: Peers, redis_process: RedisProcess
) -> None:
    """Nobody waits for a death to be noticed before they may come in again; clearing up must not hit the returned."""
    async with talking(village.talkers[1:]):
        await nodes[0].kill()
        async with asyncio.timeout(NOTICED_AFTER):
            back = peers.keep(await Peer.login(nodes[1].url, village.keys[0], "den"))
            await back.join("plaza")
        assert back.path == village.listeners[0].path
        await wait_until(lambda: _nodes_in(redis_process, 2), timeout=GONE_WITHIN, what="the death was noticed")
        present = sorted((set(village.paths) - village.paths_on(0)) | {str(back.path)})
        for observer in village.listeners[1:]:
            assert await shows(observer, present)
        before = len(back.messages)
        await village.listeners[2].whisper(back.path, "welcome back")
        await wait_until(lambda: back.whispers and len(back.messages) > before, what="the returned hears everything")


async def test_stalled_node_finds_its_place_again(nodes: list[NodeProcess], village: Village, peers: Peers) -> None:
    """A machine that was asleep or starved was buried meanwhile. Its sessions must not stay half dead when it wakes."""
    async with talking(village.talkers[1:]):
        await more_is_said(village.talkers[1:])
        nodes[0].pause()
        stalled = village.paths_on(0)
        rest = sorted(set(village.paths) - stalled)
        await wait_until(lambda: shows(village.listeners[1], rest), timeout=GONE_WITHIN, what="the stalled are gone")
        successor = peers.keep(await Peer.login(nodes[2].url, village.keys[0], "den"))
        await successor.join("plaza")
        await pause(4)  # twelve in all: longer than any lease
        nodes[0].resume()
        assert await village.listeners[0].wait_closed() == SUPERSEDED
        for observer in village.listeners[1:]:
            await wait_until(lambda o=observer: shows(o, village.paths), what="everybody is there again, once")  # type: ignore[misc]
        await more_is_said(village.talkers[1:])
    awake = village.talkers[0]
    async with talking([awake]):
        await more_is_said([awake], 5)
    await everybody_heard(village.talkers, village.listeners[1:], village.listeners[1], "plaza")
    spoken = [body for body in village.listeners[1].bodies if not body.startswith("talker0 ")]
    assert awake.peer.bodies == spoken, "whoever was on the stalled node has missed nothing"
    await village.listeners[1].whisper(awake.peer.path, "slept well?")
    await wait_until(lambda: awake.peer.whispers, what="the woken is reached by a whisper")


async def test_no_ghosts_after_the_whole_cluster_was_killed(redis_process: RedisProcess) -> None:
    """After a power cut nobody is left who could clean up; the new nodes have to, for all of the old ones."""
    peers = Peers()
    key = SigningKey.generate()
    async with cluster(redis_process.url) as nodes:
        first = peers.keep(await Peer.login(nodes[0].url, key, "den", register=("ann", "laptop")))
        await first.create("plaza")
        await first.join("plaza")
        for i in range(3):
            ghost = await peers.register(nodes[i].url, f"ghost{i}")
            await ghost.join("plaza")
        await asyncio.gather(*(node.kill() for node in nodes))
    async with cluster(redis_process.url) as nodes:
        ann = peers.keep(await Peer.login(nodes[1].url, key, "den"))
        await ann.join("plaza")
        async with asyncio.timeout(GONE_WITHIN):
            await wait_until(lambda: shows(ann, [str(ann.path)]), timeout=GONE_WITHIN, what="the ghosts are gone")
        await wait_until(lambda: _nodes_in(redis_process, 3), what="what the dead had in Redis was cleared away")
        assert await shows(ann, [str(ann.path)])
        await peers.close()


async def _nodes_in(server: RedisProcess, count: int) -> bool:
    """Tell whether Redis holds this number of nodes, and no key of any other."""
    async with Redis.from_url(server.url, decode_responses=True) as client:
        nodes = set(await client.zrange("conclave:{nodes}", 0, -1))
        named = {key.split("{n:")[1].split("}")[0] async for key in client.scan_iter("conclave:{n:*")}
        subscribers = [key async for key in client.scan_iter("conclave:{c:*:subs")]
        entries = [value for key in subscribers for value in (await client.hgetall(key)).values()]
    return len(nodes) == count and named <= nodes and all(value.split()[0] in nodes for value in entries)
