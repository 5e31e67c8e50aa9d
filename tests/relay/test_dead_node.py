"""The eviction of a dead node: all of its keys in Redis are removed, and none of another node."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from conclave.model import SessionPath
from relay.observability.metrics import Metrics
from relay.redis import connect, scripts
from relay.redis.channel_log import ChannelLog, Retention
from relay.redis.client import RedisClient
from relay.redis.dead_nodes import DeadNodes
from relay.redis.directory import Directory
from relay.redis.keys import Keys
from relay.redis.leases import Holder, Leases, latest
from relay.redis.node_registry import NodeRegistry
from tests.support.waiting import wait_until

ANN, BOB = SessionPath("ann", "laptop", "main"), SessionPath("bob", "laptop", "main")
KEYS = Keys("conclave")


class Cluster:
    """Two members without a node around them: one is about to die, the other is to remove it."""

    def __init__(self, client: RedisClient) -> None:
        self.client = client
        self.leases = Leases(client, KEYS)
        self.channels = ChannelLog(client, KEYS, Retention(ms=3_600_000, rows=1000, group_bytes=1_000_000))
        self.dead, self.living = NodeRegistry(client, KEYS), NodeRegistry(client, KEYS)
        self.seen = 0.0
        """The heartbeat of the dead node that the other one has seen last."""

    async def session(self, member: NodeRegistry, path: SessionPath, connection: str) -> None:
        """Log in at a member, and join a channel there."""
        generation, _, _ = await self.leases.take(path, "key", node=member.node, connection=connection)
        await self.channels.add_subscriber("c1", path, Holder(connection, member.node, generation))

    async def names(self) -> set[str]:
        """Return the names of all keys."""
        return {bytes(key).decode() for key in await self.client.call("KEYS", "*")}

    async def remove(self) -> bool:
        """Have the living node remove the dead one, whose heartbeat it has seen last."""
        return await DeadNodes(self.client, KEYS, self.living, Directory(self.client, KEYS)).remove(
            self.dead.node, self.seen
        )

    async def last_heartbeat(self, member: NodeRegistry) -> float:
        return float(await self.client.call("ZSCORE", KEYS.nodes, member.node))


@asynccontextmanager
async def cluster(url: str) -> AsyncIterator[Cluster]:
    client = RedisClient(connect.real(url), timeout=5.0, metrics=Metrics(scripts.NAMES))
    serving = asyncio.create_task(client.serve())
    try:
        two = Cluster(client)
        for member in (two.dead, two.living):
            await member.join()
            await member.beat()
        two.seen = await two.last_heartbeat(two.dead)
        yield two
    finally:
        serving.cancel()
        with suppress(asyncio.CancelledError):
            await serving


async def test_a_dead_node_leaves_nothing_in_redis(redis_url: str) -> None:
    """Leases have no lifetime of their own: what is not removed here stays for ever."""
    async with cluster(redis_url) as two:
        await two.session(two.dead, ANN, "c-ann")
        assert latest(await two.leases.holders(ANN), {two.dead.node}) is not None
        assert await two.remove()
        assert await two.names() == {KEYS.nodes, KEYS.head("c1")}, "the channel keeps its fence"
        assert await two.living.all_nodes() == {two.living.node}


async def test_sessions_of_other_nodes_stay(redis_url: str) -> None:
    """Also the connection that another node has taken over, and the other subscribers of the channel."""
    async with cluster(redis_url) as two:
        await two.session(two.dead, ANN, "c-ann")
        await two.session(two.living, ANN, "c-ann")
        await two.session(two.living, BOB, "c-bob")
        assert await two.remove()
        for path, connection in ((ANN, "c-ann"), (BOB, "c-bob")):
            holder = latest(await two.leases.holders(path), {two.living.node})
            assert holder is not None
            assert holder.connection == connection
        assert sorted(await two.channels.subscribers("c1")) == [
            (two.living.node, str(ANN)),
            (two.living.node, str(BOB)),
        ]


async def test_a_node_that_sent_a_heartbeat_meanwhile_is_not_dead(redis_url: str) -> None:
    """It was only slow. Its sessions stay."""
    async with cluster(redis_url) as two:
        await two.session(two.dead, ANN, "c-ann")
        seen = await two.last_heartbeat(two.dead)

        async def beats_later() -> bool:
            return await two.dead.beat() and await two.last_heartbeat(two.dead) > seen

        await wait_until(beats_later, what="a heartbeat in a later millisecond")
        assert not await two.remove()
        assert latest(await two.leases.holders(ANN), {two.dead.node}) is not None
