"""A fault: a name, a place, the time that it lasts, what it excuses, and how it is applied and healed; the choice."""

import asyncio
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from enum import Enum

import msgspec

from tests.chaos.topology import Topology
from tests.support.waiting import pause

_FAULTS_PER_ROUND = (1, 4, 8, 12)
_MOST_IN_A_PLACE = 3

Applied = Callable[[Topology, random.Random], AbstractAsyncContextManager[None]]
"""Applies a fault when it is entered, and heals it when it is left."""


class Place(Enum):
    """Where a fault is; at any time there is one at most in each place."""

    CLIENTS = "between clients and nodes"
    NODES = "nodes"
    NETWORK = "between nodes and store"
    STORE = "store"


class Fault(msgspec.Struct, frozen=True):
    """A kind of fault."""

    name: str
    place: Place
    seconds: tuple[float, float]
    """The shortest and the longest time between its application and its heal."""
    apply: Applied
    ends_connections: bool = False
    """Connections of clients may end by it."""
    fits: Callable[[Topology], bool] = lambda _: True
    is_alone: bool = False
    """It is not combined with others: what it may lose could not be told from what another one may lose."""


class Chosen(msgspec.Struct, frozen=True):
    """A fault of a round: `after` so many seconds it is applied, and healed `seconds` later."""

    fault: Fault
    after: float
    seconds: float
    seed: float

    async def run(self, topology: Topology) -> None:
        """Apply it, and heal it."""
        await pause(self.after)
        chance = random.Random(self.seed)  # noqa: S311 - chance, not secrets
        async with self.fault.apply(topology, chance):
            await pause(self.seconds)


def rounds(topology: Topology, kinds: Sequence[Fault], seed: int) -> Iterator[list[Chosen]]:
    """Choose the faults of one round after the other, without end: some in each place.

    The same topology, kinds and seed give the same choices. Every kind has its turn.
    """
    chance = random.Random(seed)  # noqa: S311 - as above
    usable = [kind for kind in kinds if kind.fits(topology)]
    waiting: list[Fault] = []
    while True:
        chosen: list[Fault] = []
        for _ in range(chance.choice(_FAULTS_PER_ROUND)):
            if not any(_may_join(kind, chosen) for kind in waiting):
                waiting += chance.sample(usable, len(usable))
            kind = next((kind for kind in waiting if _may_join(kind, chosen)), None)
            if kind is not None:
                waiting.remove(kind)
                chosen.append(kind)
        yield [Chosen(kind, chance.uniform(0, 0.4), chance.uniform(*kind.seconds), chance.random()) for kind in chosen]


def _may_join(kind: Fault, chosen: Sequence[Fault]) -> bool:
    if not chosen:
        return True
    there = [each.place for each in chosen].count(kind.place)
    return there < _MOST_IN_A_PLACE and not kind.is_alone and not chosen[0].is_alone


async def run_all(chosen: Sequence[Chosen], topology: Topology) -> None:
    """Apply and heal the faults of a round: those in different places at once, those in one place in their order."""

    async def run_at(place: Place) -> None:
        for each in chosen:
            if each.fault.place is place:
                await each.run(topology)

    async with asyncio.TaskGroup() as tasks:
        for place in Place:
            tasks.create_task(run_at(place))
