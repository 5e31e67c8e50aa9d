"""A Cluster: several primaries, each with a part of the slots, and slots that move under load."""

import random
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from redis.cluster import ClusterNode, RedisCluster
from redis.exceptions import RedisClusterException
from typing_extensions import override

from tests.chaos.fault import Fault, Place
from tests.chaos.topology import RelayNode, Store, Topology, nodes_at
from tests.support.redis_topologies import Cluster, call, redis_cluster

_REST_SECONDS = 0.05
"""Between the steps of a move."""


class Shards(Topology):
    """Nodes on a Cluster; a fault of the store is one of any of its servers."""

    takes_replicaof = False

    def __init__(self, nodes: list[RelayNode], cluster: Cluster) -> None:
        super().__init__(nodes, [Store(process) for process in cluster.masters])
        self._cluster = cluster
        self._chance = random.Random(0)  # noqa: S311 - chance, not secrets

    @property
    @override
    def primary(self) -> Store:
        return self._chance.choice(self.stores)

    @contextmanager
    @override
    def store(self) -> Iterator[Any]:
        members = [ClusterNode(*master.address) for master in self._cluster.masters]  # type: ignore[no-untyped-call]
        try:
            with RedisCluster(startup_nodes=members, socket_timeout=5, socket_connect_timeout=5) as client:
                yield client
        except RedisClusterException as error:  # which is no RedisError
            raise ConnectionError(str(error)) from error

    async def move_a_slot(self, chance: random.Random) -> None:
        """Move a slot that has keys to another server, one key after the other."""
        source = chance.choice(self._cluster.masters)
        if key := call(source, "RANDOMKEY"):
            target = chance.choice([each for each in self._cluster.masters if each is not source])
            await self._cluster.move(call(source, "CLUSTER", "KEYSLOT", key), target, rest=_REST_SECONDS)


@asynccontextmanager
async def _move(topology: Topology, chance: random.Random) -> AsyncIterator[None]:
    assert isinstance(topology, Shards)
    await topology.move_a_slot(chance)
    yield


SHARD_FAULTS = (
    Fault("store: a slot moves", Place.STORE, (0.0, 0.1), _move, fits=lambda topology: isinstance(topology, Shards)),
)


@asynccontextmanager
async def shards(directory: Path, *, installed: bool = False) -> AsyncIterator[Topology]:
    """Run nodes on a Cluster of three primaries."""
    async with redis_cluster(directory) as cluster, AsyncExitStack() as stack:
        yield Shards(await nodes_at(stack, cluster.url, installed=installed), cluster)
