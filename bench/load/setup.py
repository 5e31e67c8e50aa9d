"""The means of a scenario: one candidate that runs, the processes of its load, and the size of the run."""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

from bench.load.candidates import Installation
from bench.load.swarm import Swarm
from bench.load.worker import Plan, Times

T = TypeVar("T")

NODE_PER_POST = "node CPU per post, us"


class Spent:
    """CPU seconds in a block: of nodes, and of Redis."""

    def __init__(self) -> None:
        self.nodes = self.store = 0.0


class Setup:
    """A running candidate. Users and channels get names that nobody had before."""

    def __init__(self, installation: Installation, swarm: Swarm, *, full: bool) -> None:
        self.installation = installation
        self.swarm = swarm
        self.full = full
        self._numbers = itertools.count()

    def by_scale(self, smoke: T, full: T) -> T:
        """Return what is chosen for the size of this run."""
        return full if self.full else smoke

    def name(self, kind: str) -> str:
        return f"{kind}{next(self._numbers)}"

    def plan(
        self,
        *,
        create: tuple[str, ...] = (),
        join: tuple[str, ...] = (),
        post: tuple[str, ...] = (),
        node: int = 0,
    ) -> Plan:
        """Return a new session that creates some channels, joins some, and may post to some."""
        return Plan(self.name("user"), node, create, join, post)

    def listener(self, *channels: str, node: int = 0) -> Plan:
        """Return a new session that joins these channels."""
        return self.plan(join=channels, node=node)

    def sender(self, *channels: str) -> Plan:
        """Return a new session that creates these channels and may post there."""
        return self.plan(create=channels, post=channels)

    def channel(self, listeners: int, *, leading: int = 0) -> str:
        """Create a channel with a sender and `leading` listeners, which lead in this order, and further listeners."""
        channel = self.name("channel")
        self.swarm.open([self.sender(channel)])
        leaders, others = ([self.listener(channel) for _ in range(count)] for count in (leading, listeners))
        self.swarm.open(leaders, others)
        return channel

    @contextmanager
    def spent(self, first_node: int = 0) -> Iterator[Spent]:
        """Measure the CPU time of the candidate in the block: of its nodes from this one on, and of its Redis."""
        spent = Spent()
        nodes, store = self.installation.cpu(first_node), self.installation.store_cpu()
        yield spent
        spent.nodes = self.installation.cpu(first_node) - nodes
        spent.store = self.installation.store_cpu() - store

    def per_post(self, spent: Spent, times: Times) -> dict[str, float]:
        """Return the microseconds of CPU that each post has taken, of the nodes and of Redis."""
        found = {NODE_PER_POST: spent.nodes / times.posts * 1e6}
        if self.installation.store is not None:
            found["Redis CPU per post, us"] = spent.store / times.posts * 1e6
        return found
