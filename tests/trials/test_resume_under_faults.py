"""Resume over three real nodes: whatever dies, everybody who comes back has heard every message once and in order."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
from nacl.signing import SigningKey
from redis import Redis
from redis.exceptions import RedisError

from relay.model.message import order
from tests.support.delivery_check import Gap, flaws
from tests.support.nodes import NodeProcess
from tests.support.redis_server import RedisProcess
from tests.support.roaming_clients import Visitor, Wanderer
from tests.support.trials import FORM, Form, by_form
from tests.support.trimmed_log import Archive
from tests.support.v2_peer import V2Peer, V2Peers
from tests.support.waiting import pause, wait_until

TRIALS = by_form(3, 20, 1_000)
"""How many channels live through the faults."""
AT_ONCE = 10
_TALKERS, _VISITORS = 2, 20
_MESSAGES = 20
"""Of each talker, at least."""
_LARGE = 40_000
"""Bytes of a message in some of the channels: seven of them are more than one page of a replay."""
_PATIENCE_SECONDS = (0.001, 0.003, 5, 5, 5, 5)
"""How long a talker may wait for an answer before it sends the same again."""
_FAULTS = ("kill", "stop", "subscribers", "connections", "redis")
_SETTLE_SECONDS = 30


class Trial:
    """One channel: some who talk, many who come and go, each with luck of their own.

    Every third channel is trimmed to its last few messages all the time, every fourth has large messages.
    """

    def __init__(self, number: int, nodes: list[NodeProcess], redis: RedisProcess, seed: int) -> None:
        self.chance = random.Random(f"{seed}/{number}")  # noqa: S311 - luck, not secrets
        self.channel = f"c{number}"
        self.archive = Archive(redis.url, self.channel)
        self.is_trimmed = number % 3 == 0
        self._padding = "x" * _LARGE if number % 4 == 1 else ""
        self._nodes = nodes
        self._over = False
        self.talkers = [Wanderer(self._urls, f"talker{number}-{i}", self.chance) for i in range(_TALKERS)]
        self.visitors = [
            Visitor(self._urls, f"visitor{number}-{i}", self.chance, self.archive, since="0-0" if i % 2 else None)
            for i in range(_VISITORS)
        ]

    def _urls(self) -> list[str]:
        return [node.url for node in self._nodes if node.is_running]

    async def settle(self) -> None:
        ann = await self.talkers[0].register()
        await ann.create(self.channel)
        for talker in self.talkers[1:]:
            await talker.register()
        for visitor in self.visitors:
            await visitor.register()

    async def talk(self, talker: Wanderer, calm: asyncio.Event) -> None:
        """Say so much, each message until it is acknowledged, and go on until the faults are over."""
        count = 0
        while count < _MESSAGES or not calm.is_set():
            text, key = f"{count} {self._padding}", f"key {count}"

            async def send(peer: V2Peer, text: str = text, key: str = key) -> str:
                async with asyncio.timeout(self.chance.choice(_PATIENCE_SECONDS)):
                    return await peer.post(self.channel, text, key=key)

            self.archive.acknowledge(await talker.insist(send, self.channel), talker.path)
            count += 1
            if self.chance.random() < 0.5:  # else two in a row
                await pause(self.chance.uniform(0, 0.8))

    async def trim(self, calm: asyncio.Event) -> None:
        """Keep little, as a small retention would."""
        while self.is_trimmed and not calm.is_set():
            await pause(self.chance.uniform(0.1, 0.6))
            with suppress(RedisError):
                self.archive.trim(self.chance.randint(1, 8))

    async def run(self, calm: asyncio.Event) -> None:
        async with asyncio.TaskGroup() as tasks:
            for visitor in self.visitors:
                tasks.create_task(visitor.visit(self.channel, calm=calm.is_set, over=lambda: self._over))
            async with asyncio.TaskGroup() as talking:
                talking.create_task(self.trim(calm))
                for talker in self.talkers:
                    talking.create_task(self.talk(talker, calm))
            with suppress(AssertionError):  # what they have not heard, the judge will tell
                await wait_until(self._all_have_heard, timeout=_SETTLE_SECONDS)
            self._over = True

    def _all_have_heard(self) -> bool:
        return all(visitor.position == self.archive.said for visitor in self.visitors)

    async def check(self) -> list[str]:
        """Compare what everybody heard with the channel's log; returns what is wrong."""
        history = await self.talkers[0].insist(lambda peer: peer.history(self.channel), self.channel)
        rows, said = self.archive.rows(history), self.archive.acknowledged
        wrong = [] if rows == sorted(said.values(), key=lambda row: order(row.id)) else ["the log is not what was said"]
        for visitor in self.visitors:
            wrong += [f"{visitor.path}: {flaw}" for flaw in flaws(visitor.path, visitor.stays, rows)]
            wrong += [f"{visitor.path}: got {stray} outside of the channel" for stray in visitor.strays]
        return wrong

    def figures(self) -> Counter[str]:
        """Count what happened."""
        stays = [stay for visitor in self.visitors for stay in visitor.stays]
        steps = [step for stay in stays for step in stay.steps]
        return Counter(
            trials=1,
            sessions=len(self.visitors),
            messages=len(self.archive.acknowledged),
            heard=sum(isinstance(step, str) for step in steps),
            resumes=sum(stay.asked.since is not None for stay in stays),
            unrecovered=sum(stay.recovered is False for stay in stays),
            gaps=sum(isinstance(step, Gap) for step in steps),
            joins_anew=sum(stay.asked.since is None for stay in stays),
            leaves=sum(visitor.leaves for visitor in self.visitors),
            cuts=sum(visitor.cuts for visitor in self.visitors),
            logins=sum(visitor.logins for visitor in (*self.visitors, *self.talkers)),
        )

    async def end(self) -> None:
        await asyncio.gather(*(each.go_home() for each in (*self.talkers, *self.visitors)))


async def break_things(nodes: list[NodeProcess], redis: RedisProcess, chance: random.Random) -> None:
    """Nodes and Redis are killed and come back, connections to Redis break; two nodes live at any time."""
    for kind in chance.sample(_FAULTS, len(_FAULTS)):
        await pause(chance.uniform(0.1, 0.5))
        if kind in ("kill", "stop"):
            node = chance.choice(nodes)
            await (node.kill() if kind == "kill" else node.stop())
            await node.start()
        elif kind == "redis":
            await redis.restart()
        else:
            with Redis.from_url(redis.url) as store:
                store.client_kill_filter(_type="pubsub" if kind == "subscribers" else "normal", skipme=True)


@asynccontextmanager
async def channels(
    numbers: range, nodes: list[NodeProcess], redis: RedisProcess, seed: int
) -> AsyncIterator[list[Trial]]:
    trials = [Trial(number, nodes, redis, seed) for number in numbers]
    try:
        await asyncio.gather(*(trial.settle() for trial in trials))
        yield trials
    finally:
        await asyncio.gather(*(trial.end() for trial in trials))


@pytest.mark.timeout(240 + 60 * TRIALS // AT_ONCE)
async def test_whoever_comes_back_has_heard_everything_once(
    nodes: list[NodeProcess], redis_process: RedisProcess
) -> None:
    """Nodes die, Redis dies, connections break on all sides, people come and go: each session hears the channel's log.

    From its first position on, once and in order; or it is told that something is lost, and the log was trimmed.

    Redis is killed, too: it writes every change to its disk before it tells anybody, so it comes back with all that was
    acknowledged or delivered. A Redis that forgets (a failover to a replica that lags behind) is not among the faults
    here: what it may lose is lost, and that the sessions are told is for the tests of the parts, where it is certain
    what was forgotten.
    """
    seed = random.SystemRandom().randrange(10**6)
    print(f"seed {seed}")  # noqa: T201 - shown if it fails
    figures: Counter[str] = Counter()
    for first in range(0, TRIALS, AT_ONCE):
        chance = random.Random(f"{seed}/{first}")  # noqa: S311 - as above
        numbers = range(first, min(first + AT_ONCE, TRIALS))
        async with channels(numbers, nodes, redis_process, seed) as trials:
            calm = asyncio.Event()
            async with asyncio.TaskGroup() as tasks:
                for trial in trials:
                    tasks.create_task(trial.run(calm))
                await break_things(nodes, redis_process, chance)
                calm.set()
            figures.update(faults=len(_FAULTS))
            for trial in trials:
                figures += trial.figures()
                wrong = await trial.check()
                assert not wrong, f"{trial.channel}, {len(wrong)} flaws:\n" + "\n".join(wrong[:20])
        print(dict(figures))  # noqa: T201 - as above
    assert figures["resumes"] > figures["sessions"], "nobody came back"
    assert figures["unrecovered"] > 0 or FORM is Form.EXAMPLE, "nobody met a log that was trimmed"


async def test_the_death_of_ones_node_costs_nothing(nodes: list[NodeProcess], v2_peers: V2Peers) -> None:
    """The plain case, without luck: the node is killed, the client goes on at another one where it was."""
    ann = await v2_peers.register(nodes[1].url, "ann")
    await ann.create("ops")
    await ann.join("ops")
    key = SigningKey.generate()
    bob = await v2_peers.login(nodes[0].url, key, register=("bob", "laptop"))
    await bob.join("ops")
    said = [await ann.post("ops", "before")]
    await wait_until(lambda: bob.ids("ops") == said, what="bob hears")
    await nodes[0].kill()
    said += [await ann.post("ops", f"meanwhile {i}") for i in range(100)]
    bob = await v2_peers.login(nodes[2].url, key)
    assert (await bob.join("ops", since=said[0]))["recovered"] is True
    said.append(await ann.post("ops", "after"))
    await wait_until(lambda: len(bob.ids("ops")) >= len(said) - 1, what="bob has heard all")
    assert bob.ids("ops") == said[1:]
    assert bob.of("gap") == []
