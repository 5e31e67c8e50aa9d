"""Resume over three real nodes: whatever dies, everybody who comes back has heard every message once and in order."""

import asyncio
import os
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from redis import Redis

from tests.support.nodes import NodeProcess
from tests.support.peer2 import Peer2, Peers2
from tests.support.redis_server import RedisProcess
from tests.support.waiting import pause, wait_until
from tests.support.wandering import Wanderer, others

TRIALS = int(os.environ.get("RESUME_TRIALS", "30"))
"""How many channels live through the faults; 1,000 by hand."""
AT_ONCE = 30
_MESSAGES = 40
_FAULTS = 4


class Trial:
    """One channel: somebody who talks, and two who listen, each with faults of their own."""

    def __init__(self, number: int, nodes: list[NodeProcess], seed: int) -> None:
        self.chance = random.Random(f"{seed}/{number}")  # noqa: S311 - luck, not secrets
        self.channel = f"c{number}"
        self._nodes = nodes
        self.talker, *self.listeners = [
            Wanderer(self._urls, f"{role}{number}", self.chance) for role in ("talker", "first", "second")
        ]
        self.acknowledged: list[str] = []
        self.heard_all = False

    def _urls(self) -> list[str]:
        return [node.url for node in self._nodes if node.is_running]

    async def settle(self) -> None:
        ann = await self.talker.register()
        await ann.create(self.channel)
        await ann.join(self.channel)
        for listener in self.listeners:
            await listener.register()

    async def talk(self, *, calm: asyncio.Event) -> None:
        """Say so much, each message until it is acknowledged, and go on until the faults are over."""
        count = 0
        while count < _MESSAGES or not calm.is_set():
            text, key = f"{count}", f"key {count}"

            async def send(peer: Peer2, text: str = text, key: str = key) -> str:
                return await peer.post(self.channel, text, key=key)

            self.acknowledged.append(await self.talker.insist(send, self.channel))
            count += 1
            await pause(self.chance.uniform(0, 0.1))

    async def be_cut(self, *, calm: asyncio.Event) -> None:
        """Lose connections now and then."""
        while not calm.is_set():
            await pause(self.chance.uniform(0.1, 1))
            await self.chance.choice([self.talker, *self.listeners]).cut()

    async def run(self, calm: asyncio.Event) -> None:
        async with asyncio.TaskGroup() as tasks:
            listening = [
                tasks.create_task(listener.listen(self.channel, "0-0", until=lambda: self.heard_all))
                for listener in self.listeners
            ]
            cutting = tasks.create_task(self.be_cut(calm=calm))
            await self.talk(calm=calm)
            await cutting
            await wait_until(
                lambda: all(len(each.heard) >= len(self.acknowledged) for each in self.listeners),
                timeout=30,
                what=f"{self.channel} is heard by all: {[len(each.heard) for each in self.listeners]} "
                f"of {len(self.acknowledged)}",
            )
            self.heard_all = True
            await asyncio.gather(*listening)

    async def check(self) -> None:
        """Compare what everybody heard with the channel's log."""
        rows = await self.talker.insist(lambda peer: peer.history(self.channel), self.channel)
        log = [row["id"] for row in rows]
        assert log == self.acknowledged, f"{self.channel}: what was acknowledged is not what is kept"
        assert [row["body"]["text"] for row in rows] == [str(i) for i in range(len(rows))]
        for listener in self.listeners:
            assert listener.heard == others(rows, listener.path), f"{listener.path} heard something else than was said"
            assert (listener.gaps, listener.unrecovered) == (0, 0), "nothing was lost"

    async def end(self) -> None:
        await asyncio.gather(*(each.leave() for each in (self.talker, *self.listeners)))


async def faults(nodes: list[NodeProcess], redis: RedisProcess, chance: random.Random) -> None:
    """Nodes are killed and come back, Redis connections break; two nodes live at any time."""
    kinds = ["kill", "stop", "subscribers", "connections"] * (_FAULTS // 4)
    chance.shuffle(kinds)
    for kind in kinds:
        await pause(chance.uniform(0.1, 0.5))
        with Redis.from_url(redis.url) as store:
            if kind == "subscribers":
                store.client_kill_filter(_type="pubsub")
            elif kind == "connections":
                store.client_kill_filter(_type="normal", skipme=True)
            else:
                node = chance.choice(nodes)
                await (node.kill() if kind == "kill" else node.stop())
                await node.start()


@asynccontextmanager
async def channels(numbers: range, nodes: list[NodeProcess], seed: int) -> AsyncIterator[list[Trial]]:
    trials = [Trial(number, nodes, seed) for number in numbers]
    try:
        for trial in trials:
            await trial.settle()
        yield trials
    finally:
        await asyncio.gather(*(trial.end() for trial in trials))


@pytest.mark.timeout(120 + 20 * TRIALS // AT_ONCE)
async def test_whoever_comes_back_has_heard_everything_once(
    nodes: list[NodeProcess], redis_process: RedisProcess
) -> None:
    """Nodes die, connections break on all sides: every session's sequence is the channel's log."""
    seed = random.SystemRandom().randrange(10**6)
    print(f"seed {seed}")  # noqa: T201 - shown if it fails
    for first in range(0, TRIALS, AT_ONCE):
        chance = random.Random(f"{seed}/{first}")  # noqa: S311 - as above
        async with channels(range(first, min(first + AT_ONCE, TRIALS)), nodes, seed) as trials:
            calm = asyncio.Event()
            async with asyncio.TaskGroup() as tasks:
                for trial in trials:
                    tasks.create_task(trial.run(calm))
                await faults(nodes, redis_process, chance)
                calm.set()
            await asyncio.gather(*(trial.check() for trial in trials))
            assert sum(each.logins for trial in trials for each in trial.listeners) > 2 * len(trials)


@pytest.fixture
async def peers2(nodes: list[NodeProcess]) -> AsyncIterator[Peers2]:
    assert nodes
    everybody = Peers2()
    try:
        yield everybody
    finally:
        await everybody.close()


async def test_the_death_of_ones_node_costs_nothing(nodes: list[NodeProcess], peers2: Peers2) -> None:
    """The plain case, without luck: the node is killed, the client goes on at another one where it was."""
    ann = await peers2.register(nodes[1].url, "ann")
    await ann.create("ops")
    await ann.join("ops")
    bob = Wanderer(lambda: [nodes[0].url], "bob", random.Random(1))  # noqa: S311 - as above
    other = Wanderer(lambda: [nodes[2].url], "bob", random.Random(1))  # noqa: S311 - the same key
    first = await bob.register()
    await first.join("ops")
    said = [await ann.post("ops", "before")]
    await wait_until(lambda: first.ids("ops") == said, what="bob hears")
    await nodes[0].kill()
    said += [await ann.post("ops", f"meanwhile {i}") for i in range(100)]
    done = asyncio.Event()
    listening = asyncio.create_task(other.listen("ops", said[0], until=done.is_set))
    said.append(await ann.post("ops", "after"))
    await wait_until(lambda: len(other.heard) >= len(said) - 1, what="bob has heard all")
    done.set()
    await listening
    await asyncio.gather(bob.leave(), other.leave())
    assert other.heard == said[1:]
    assert other.unrecovered == other.gaps == 0
