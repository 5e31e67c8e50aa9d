"""Nodes on a Redis Cluster: slots move, masters die, and no message is lost or delivered twice."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from conclave.model import SessionPath
from relay.app.config import NodeConfig, RedisUrl
from relay.app.node import Node
from relay.observability.metrics import Metrics
from relay.redis import connect
from relay.redis.keys import Keys
from relay.redis.sharding.client import ClusterClient
from relay.redis.sharding.slot_map import slot_of
from relay.redis.store_url import parse_several
from relay.services.server_admins import ServerAdmins
from tests.support.nodes import node_object
from tests.support.peer import Peer, Peers, Refused, are_served
from tests.support.redis_server import RedisProcess
from tests.support.redis_topologies import Cluster, Member, call, redis_cluster
from tests.support.traffic import Poster, assert_all_delivered, more_is_acknowledged, posting
from tests.support.waiting import wait_until

KEYS = Keys("conclave")


class Relay:
    """Two nodes, and a session at each of them."""

    def __init__(self, cluster: Cluster, nodes: tuple[Node, Node], ann: Peer, bob: Peer) -> None:
        self.cluster = cluster
        self.nodes = nodes
        self.ann = ann
        self.bob = bob
        self._numbers = count()

    async def join(self, channel: str) -> str:
        """Have ann create a channel, and both join it. Returns its id."""
        before = set(self.nodes[0].parts.fanout._channels)
        await self.ann.create(channel)
        await self.ann.join(channel)
        await self.bob.join(channel)
        (channel_id,) = set(self.nodes[0].parts.fanout._channels) - before
        return channel_id

    async def join_where(self, is_wanted: Callable[[Member], bool]) -> tuple[str, str]:
        """Have both join a channel that such a master has. Returns its name and its id."""
        for number in self._numbers:
            channel_id = await self.join(f"ops{number}")
            if is_wanted(self.cluster.master_of(slot_of(KEYS.live(channel_id)))):
                return f"ops{number}", channel_id
        raise AssertionError

    async def move(self, key: str, *, rest: float = 0.0) -> None:
        """Move the slot of a key to the next master."""
        masters, slot = self.cluster.masters, slot_of(key)
        target = masters[(masters.index(self.cluster.master_of(slot)) + 1) % len(masters)]
        await self.cluster.move(slot, target, rest=rest)

    async def free(self, server: Member, keys: Iterable[str]) -> None:
        """Move the slots of keys away from a master."""
        for key in keys:
            while self.cluster.master_of(slot_of(key)) is server:
                await self.move(key)


@asynccontextmanager
async def relay_on(cluster: Cluster, url: str) -> AsyncIterator[Relay]:
    async with node_object(url) as one, node_object(url) as other, Peers() as peers:
        ann = await peers.register(f"ws://{one.address}/", "ann")
        bob = await peers.register(f"ws://{other.address}/", "bob")
        yield Relay(cluster, (one, other), ann, bob)


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    async with redis_cluster(tmp_path) as cluster:
        yield cluster


@pytest.fixture
async def relay(cluster: Cluster) -> AsyncIterator[Relay]:
    async with relay_on(cluster, cluster.url) as relay:
        yield relay


@pytest.mark.parametrize("pubsub", ["sharded", "classic"])
async def test_slots_move_under_load(cluster: Cluster, pubsub: str) -> None:
    """Each key of a slot is moved by itself. Commands wait meanwhile; none is lost or executed twice.

    A post is refused rather than executed after a later command, which happens once at most in so many posts.
    """
    async with relay_on(cluster, f"{cluster.url}?pubsub={pubsub}") as relay:
        channel_id = await relay.join("ops")
        poster = Poster(relay.ann, "ops", "ann")
        async with posting([poster]):
            for _ in range(3):
                await more_is_acknowledged([poster], 5)
                await relay.move(KEYS.live(channel_id), rest=0.02)
            for node in relay.nodes:
                await relay.move(KEYS.inbox(node.name), rest=0.02)
            for key in (KEYS.directory, KEYS.nodes):
                await relay.move(key, rest=0.02)
            await more_is_acknowledged([poster], 5)
        assert len(poster.refusals) <= 1
        await assert_all_delivered([poster], [relay.bob], relay.ann, "ops")
        assert await relay.ann.who() == await relay.bob.who() == ["ann/laptop/main", "bob/laptop/main"]
        await relay.ann.whisper(SessionPath("bob", "laptop", "main"), "psst")
        await wait_until(lambda: relay.bob.whispers, what="the whisper arrives")


async def test_commands_in_flight_keep_their_order(cluster: Cluster) -> None:
    """Many are on their way when their slot is moved. Each is executed once, in the order of the calls."""
    client = ClusterClient(connect.Members(parse_several(cluster.url)), timeout=20.0, metrics=Metrics(()), needed=tuple)
    serving = asyncio.create_task(client.serve())
    replies: list[asyncio.Future[Any]] = []
    moving = asyncio.create_task(_move_around(cluster, slot_of("list")))
    while not moving.done():
        replies += [client.call("RPUSH", "list", len(replies) + number) for number in range(20)]
        await asyncio.sleep(0)
    await asyncio.gather(moving, *replies)
    kept = [int(number) for number in await client.call("LRANGE", "list", 0, -1)]
    assert kept == list(range(len(replies)))
    serving.cancel()
    await asyncio.wait([serving])


async def _move_around(cluster: Cluster, slot: int) -> None:
    for number in range(4):
        home = cluster.masters.index(cluster.master_of(slot))
        await cluster.move(slot, cluster.masters[home - 1], rest=0.02 * (number % 2))


async def test_a_directory_that_is_moved_shows_no_half_of_itself(relay: Relay) -> None:
    """A script that met only the keys that have arrived would give existing names away."""
    slot = slot_of(KEYS.directory)
    source = relay.cluster.master_of(slot)
    target = next(each for each in relay.cluster.masters if each is not source)
    async with relay.cluster.half_moved(slot, target, KEYS.cluster), Peers() as peers:
        asked = [asyncio.create_task(peers.register(f"ws://{node.address}/", "ann")) for node in relay.nodes]
        await asyncio.wait(asked)
        for task in asked:
            assert isinstance(task.exception(), Refused | AssertionError), "the name was given away"
    await wait_until(lambda: are_served(relay.ann, relay.bob), what="the directory is whole again")


async def test_the_channels_of_other_masters_go_on(relay: Relay) -> None:
    """A master that dies takes its channels with it until it is back, and nothing else."""
    cluster = relay.cluster
    needed = [KEYS.nodes, KEYS.directory, *(KEYS.inbox(node.name) for node in relay.nodes)]
    dying = cluster.masters[0]
    await relay.free(dying, needed)
    gone, _ = await relay.join_where(lambda server: server is dying)
    kept, _ = await relay.join_where(lambda server: server is not dying)
    posters = [Poster(relay.ann, channel, channel) for channel in (kept, gone)]
    for poster in posters:
        await poster.post_next()
    dying.kill()
    await wait_until(lambda: _is_refused(posters[1]), what="posts to its channel are refused")
    for _ in range(3):
        assert await posters[0].post_next()
    assert all(node.is_ready for node in relay.nodes)
    assert [node.parts.client.masters_away for node in relay.nodes] == [1, 1]
    await wait_until(lambda: posters[0].acknowledged[-1] in relay.bob.bodies, what="bob has what is posted elsewhere")
    await dying.start()
    await wait_until(posters[1].post_next, what="its channel goes on")
    sent = [body for poster in posters for body in poster.acknowledged]
    await wait_until(lambda: set(sent) <= set(relay.bob.bodies), what="bob has every message")
    assert len(relay.bob.bodies) == len(set(relay.bob.bodies))


async def _is_refused(poster: Poster) -> bool:
    return not await poster.post_next()


def kill(cluster: Cluster) -> None:
    cluster.masters[-1].kill()


def fail_over(cluster: Cluster) -> None:
    assert cluster.replica is not None
    call(cluster.replica, "CLUSTER", "FAILOVER")


@pytest.mark.parametrize("change", [kill, fail_over])
async def test_a_replica_takes_over(tmp_path: Path, change: Callable[[Cluster], None]) -> None:
    """Nodes find the new master by themselves, and sessions stay."""
    async with redis_cluster(tmp_path, replica=True) as cluster, relay_on(cluster, cluster.url) as relay:
        dying = cluster.masters[-1]
        channel, _ = await relay.join_where(lambda server: server is dying)
        poster = Poster(relay.ann, channel, "ann")
        for _ in range(3):
            assert await poster.post_next()
        await cluster.in_step()
        change(cluster)
        await wait_until(lambda: cluster.is_replaced(dying), timeout=30, what="the replica has the slots")
        await wait_until(poster.post_next, what="posts are accepted again")
        await wait_until(lambda: are_served(relay.ann, relay.bob), what="both nodes serve")
        await assert_all_delivered([poster], [relay.bob], relay.ann, channel)
        assert await relay.ann.who() == await relay.bob.who() == ["ann/laptop/main", "bob/laptop/main"]


async def reason(url: str) -> str:
    """Return the reason for which a node on this store waits."""
    node = Node(NodeConfig("127.0.0.1", 0, RedisUrl(url), ServerAdmins({})), connect.store(url))
    with capture_logs() as logged:

        def reasons() -> list[str]:
            return [event["reason"] for event in logged if event["event"] == "node.waiting"]

        running = asyncio.create_task(node.run())
        try:
            await wait_until(reasons, what="the reason is logged")
        finally:
            node.stop()
            await running
    return reasons()[0]


async def test_a_sentence_says_which_url_to_use(cluster: Cluster, redis_process_tcp: RedisProcess) -> None:
    """The form of the URL has to be that of the store."""
    directory = cluster.master_of(slot_of(KEYS.directory))
    other = next(each for each in cluster.masters if each is not directory)
    assert await reason(other.url) == (
        "this server is a member of a Cluster: its URL has to begin with redis+cluster:// or rediss+cluster://"
    )
    alone = f"127.0.0.1:{redis_process_tcp.port}"
    assert await reason(f"redis+cluster://{alone}") == (
        "no member of the Cluster answers: "
        f"it is a server of its own, for a URL that begins with redis:// or rediss:// ({alone})"
    )
    redis_process_tcp.kill()
    assert "no member of the Cluster answers: ConnectionError: " in await reason(f"redis+cluster://{alone}")
