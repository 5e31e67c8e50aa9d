"""Faults of the nodes' processes."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from tests.chaos.fault import Fault, Place
from tests.chaos.topology import RelayNode, Topology
from tests.support.nodes import NodeProcess

Nodes = Callable[[Topology, random.Random], list[RelayNode]]


def _one(topology: Topology, chance: random.Random) -> list[RelayNode]:
    return [chance.choice(topology.nodes)]


def every_node(topology: Topology, _: random.Random) -> list[RelayNode]:
    return list(topology.nodes)


@asynccontextmanager
async def ended(
    topology: Topology, chance: random.Random, *, nodes: Nodes, end: Callable[[NodeProcess], Any]
) -> AsyncIterator[None]:
    chosen = nodes(topology, chance)
    await asyncio.gather(*(node.end(end) for node in chosen))
    try:
        yield
    finally:
        await asyncio.gather(*(node.restart() for node in chosen))


@asynccontextmanager
async def _stopped(topology: Topology, chance: random.Random) -> AsyncIterator[None]:
    node = chance.choice(topology.nodes)
    node.process.pause()
    try:
        yield
    finally:
        node.process.resume()


@asynccontextmanager
async def _rolling(topology: Topology, _: random.Random) -> AsyncIterator[None]:
    for node in topology.nodes:
        await node.end(NodeProcess.stop)
        await node.restart()
    yield


NODE_FAULTS = (
    Fault("nodes: kill -9", Place.NODES, (0.0, 2.0), partial(ended, nodes=_one, end=NodeProcess.kill), True),
    Fault("nodes: SIGTERM", Place.NODES, (0.0, 0.5), partial(ended, nodes=_one, end=NodeProcess.stop), True),
    Fault("nodes: all kill -9", Place.NODES, (0.0, 0.5), partial(ended, nodes=every_node, end=NodeProcess.kill), True),
    Fault("nodes: rolling restart", Place.NODES, (0.0, 0.1), _rolling, True),
    Fault("nodes: SIGSTOP", Place.NODES, (0.2, 3.0), _stopped),
    Fault("nodes: SIGSTOP until evicted", Place.NODES, (7.0, 9.0), _stopped),
)
