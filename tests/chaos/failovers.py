"""Failovers: a replica is promoted, with all that the primary has or without the last of it."""

import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial

from tests.chaos.fault import Applied, Fault, Place
from tests.chaos.pair import Pair
from tests.chaos.topology import Topology


@asynccontextmanager
async def _failover(
    topology: Topology, chance: random.Random, *, loss: bool, keeps_old_connections: bool = False
) -> AsyncIterator[None]:
    lag = chance.uniform(0.2, 1.5) if loss else 0.0
    await topology.fail_over(lag=lag, keeps_old_connections=keeps_old_connections)
    yield


@asynccontextmanager
async def _to_another_clock(topology: Topology, chance: random.Random, *, skew: float) -> AsyncIterator[None]:
    assert isinstance(topology, Pair)
    clock = topology.standby.clock
    assert clock is not None
    clock.set(skew)
    try:
        async with _failover(topology, chance, loss=True):
            yield
    finally:
        clock.set(0)


def _fails_over(topology: Topology) -> bool:
    return topology.fails_over


def _is_pair(topology: Topology) -> bool:
    return isinstance(topology, Pair)


def _has_clocks(topology: Topology) -> bool:
    return _is_pair(topology) and topology.has_clocks


def _of(name: str, seconds: tuple[float, float], fits: Callable[[Topology], bool], apply: Applied) -> Fault:
    return Fault(f"store: failover {name}", Place.STORE, seconds, apply, fits=fits, is_alone=True)


FAILOVERS = (
    _of("without loss", (0.0, 0.5), _fails_over, partial(_failover, loss=False)),
    _of("with loss", (0.0, 0.5), _fails_over, partial(_failover, loss=True)),
    _of(
        "with loss, old connections stay",
        (0.0, 0.5),
        _is_pair,
        partial(_failover, loss=True, keeps_old_connections=True),
    ),
    _of("with loss, to a clock 30 s behind", (1.0, 2.0), _has_clocks, partial(_to_another_clock, skew=-30)),
)
