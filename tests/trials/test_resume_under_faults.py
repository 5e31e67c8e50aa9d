"""Resume over three real nodes: whatever dies, a session that resumes receives every message once and in order."""

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
from tests.support.roaming_clients import ResumingClient, RoamingClient
from tests.support.trials import FORM, Form, by_form
from tests.support.trimmed_log import TrimmedLog
from tests.support.v2_peer import V2Peer, V2Peers
from tests.support.waiting import pause, wait_until

TRIALS = by_form(3, 20, 1_000)
"""The channels that go through the faults."""
AT_ONCE = 10
_POSTERS, _CLIENTS = 2, 20
_MESSAGES = 20
"""Of each poster, at least."""
_LARGE = 40_000
"""Bytes of a message in some of the channels: seven of them are more than one page of a replay."""
_PATIENCE_SECONDS = (0.001, 0.003, 5, 5, 5, 5)
"""The waits of a poster for a reply, before it sends the same message again."""
_FAULTS = ("kill", "stop", "subscribers", "connections", "redis")
_CATCH_UP_SECONDS = 30


class Trial:
    """One channel: some clients that post, many that join and leave, each at random.

    Every third channel is trimmed to its last few messages all the time, every fourth has large messages.
    """

    def __init__(self, number: int, nodes: list[NodeProcess], redis: RedisProcess, seed: int) -> None:
        self.chance = random.Random(f"{seed}/{number}")  # noqa: S311 - chance, not secrets
        self.channel = f"c{number}"
        self.log = TrimmedLog(redis.url, self.channel)
        self.is_trimmed = number % 3 == 0
        self._padding = "x" * _LARGE if number % 4 == 1 else ""
        self._nodes = nodes
        self._over = False
        self.posters = [RoamingClient(self._urls, f"poster{number}-{i}", self.chance) for i in range(_POSTERS)]
        self.clients = [
            ResumingClient(self._urls, f"client{number}-{i}", self.chance, self.log, since="0-0" if i % 2 else None)
            for i in range(_CLIENTS)
        ]

    def _urls(self) -> list[str]:
        return [node.url for node in self._nodes if node.is_running]

    async def open(self) -> None:
        ann = await self.posters[0].register()
        await ann.create(self.channel)
        for poster in self.posters[1:]:
            await poster.register()
        for client in self.clients:
            await client.register()

    async def post(self, poster: RoamingClient, calm: asyncio.Event) -> None:
        """Post messages, each until it is acknowledged, and go on until the faults are over."""
        count = 0
        while count < _MESSAGES or not calm.is_set():
            text, key = f"{count} {self._padding}", f"key {count}"

            async def send(peer: V2Peer, text: str = text, key: str = key) -> str:
                async with asyncio.timeout(self.chance.choice(_PATIENCE_SECONDS)):
                    return await peer.post(self.channel, text, key=key)

            self.log.acknowledge(await poster.ask_until_answered(send, self.channel), poster.path)
            count += 1
            if self.chance.random() < 0.5:  # else two in a row
                await pause(self.chance.uniform(0, 0.8))

    async def trim(self, calm: asyncio.Event) -> None:
        """Keep little, as a small retention would."""
        while self.is_trimmed and not calm.is_set():
            await pause(self.chance.uniform(0.1, 0.6))
            with suppress(RedisError):
                self.log.trim(self.chance.randint(1, 8))

    async def run(self, calm: asyncio.Event) -> None:
        async with asyncio.TaskGroup() as tasks:
            for client in self.clients:
                tasks.create_task(client.run(self.channel, calm=calm.is_set, over=lambda: self._over))
            async with asyncio.TaskGroup() as posting:
                posting.create_task(self.trim(calm))
                for poster in self.posters:
                    posting.create_task(self.post(poster, calm))
            with suppress(AssertionError):  # the comparison reports what is missing
                await wait_until(self._all_have_received, timeout=_CATCH_UP_SECONDS)
            self._over = True

    def _all_have_received(self) -> bool:
        return all(client.position == self.log.last_acknowledged for client in self.clients)

    async def check(self) -> list[str]:
        """Compare what each client received with the channel's log; returns what is wrong."""
        history = await self.posters[0].ask_until_answered(lambda peer: peer.history(self.channel), self.channel)
        rows, posted = self.log.rows(history), self.log.acknowledged
        wrong = (
            [] if rows == sorted(posted.values(), key=lambda row: order(row.id)) else ["the log is not what was posted"]
        )
        for client in self.clients:
            wrong += [f"{client.path}: {flaw}" for flaw in flaws(client.path, client.stays, rows)]
            wrong += [f"{client.path}: got {event} outside of the channel" for event in client.unexpected]
        return wrong

    def figures(self) -> Counter[str]:
        """Count what happened."""
        stays = [stay for client in self.clients for stay in client.stays]
        steps = [step for stay in stays for step in stay.steps]
        return Counter(
            trials=1,
            sessions=len(self.clients),
            messages=len(self.log.acknowledged),
            received=sum(isinstance(step, str) for step in steps),
            resumes=sum(stay.request.since is not None for stay in stays),
            unrecovered=sum(stay.recovered is False for stay in stays),
            gaps=sum(isinstance(step, Gap) for step in steps),
            joins_anew=sum(stay.request.since is None for stay in stays),
            leaves=sum(client.leaves for client in self.clients),
            cuts=sum(client.cuts for client in self.clients),
            logins=sum(client.logins for client in (*self.clients, *self.posters)),
        )

    async def end(self) -> None:
        await asyncio.gather(*(each.close() for each in (*self.posters, *self.clients)))


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
        await asyncio.gather(*(trial.open() for trial in trials))
        yield trials
    finally:
        await asyncio.gather(*(trial.end() for trial in trials))


@pytest.mark.timeout(240 + 60 * TRIALS // AT_ONCE)
async def test_a_session_that_resumes_has_received_everything_once(
    nodes: list[NodeProcess], redis_process: RedisProcess
) -> None:
    """Nodes die, Redis dies, connections break, clients join and leave: each session receives the channel's log.

    From its first position on, once and in order; or a gap is reported, and the log was trimmed.

    Redis is killed, too: it writes every change to its disk before it replies, so it comes back with all that was
    acknowledged or delivered. A Redis that forgets (a failover to a replica that lags behind) is not among the faults
    here: that sessions are told of the loss is for the tests of the parts, where it is certain what was lost.
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
    assert figures["resumes"] > figures["sessions"], "no session resumed"
    assert figures["unrecovered"] > 0 or FORM is Form.EXAMPLE, "no session met a log that was trimmed"


async def test_a_session_of_a_killed_node_resumes_at_another(nodes: list[NodeProcess], v2_peers: V2Peers) -> None:
    """The plain case, without random faults: the node is killed, the client resumes at another one."""
    ann = await v2_peers.register(nodes[1].url, "ann")
    await ann.create("ops")
    await ann.join("ops")
    key = SigningKey.generate()
    bob = await v2_peers.login(nodes[0].url, key, register=("bob", "laptop"))
    await bob.join("ops")
    acknowledged = [await ann.post("ops", "before")]
    await wait_until(lambda: bob.ids("ops") == acknowledged, what="bob gets it")
    await nodes[0].kill()
    acknowledged += [await ann.post("ops", f"meanwhile {i}") for i in range(100)]
    bob = await v2_peers.login(nodes[2].url, key)
    assert (await bob.join("ops", since=acknowledged[0]))["recovered"] is True
    acknowledged.append(await ann.post("ops", "after"))
    await wait_until(lambda: len(bob.ids("ops")) >= len(acknowledged) - 1, what="bob has got all")
    assert bob.ids("ops") == acknowledged[1:]
    assert bob.of("gap") == []
