"""One channel that goes through the faults: some clients that post, and many that join and leave, each at random."""

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from typing import Any

from redis.exceptions import RedisError

from tests.chaos import judge
from tests.chaos.actors import Listener, Talker, Urls
from tests.chaos.channel_log import ChannelLog
from tests.chaos.deliveries import Gap, Row, flaws
from tests.support.waiting import pause, wait_until

Store = Callable[[], AbstractContextManager[Any]]
"""Opens a client of the store that is the primary by now."""

_TALKERS, _LISTENERS = 2, 20
_MESSAGES = 20
"""Of each talker, at least."""
_LARGE = 40_000
"""Bytes of a message in some of the channels: seven of them are more than one page of a replay."""
_CATCH_UP_SECONDS = 30.0


class Conversation:
    """One channel with its clients. Every fourth has large messages.

    Every third is trimmed to its last few messages all the time, unless the topology `loses` messages: there, nobody
    could tell a trim from a loss.
    """

    def __init__(self, name: str, number: int, urls: Urls, store: Store, *, seed: int, loses: bool) -> None:
        self.chance = random.Random(f"{seed}/{name}")  # noqa: S311 - chance, not secrets
        self.channel = name
        self.log = ChannelLog(name)
        self._store = store
        self._is_trimmed = number % 3 == 0 and not loses
        self._padding = "x" * _LARGE if number % 4 == 1 else ""
        self._is_over = False
        self.talkers = [Talker(urls, f"{name}-talker{i}", self.chance) for i in range(_TALKERS)]
        self.listeners = [
            Listener(urls, f"{name}-listener{i}", self.chance, self.log, since="0-0" if i % 2 else None)
            for i in range(_LISTENERS)
        ]

    async def open(self) -> None:
        """Register everybody, and make the channel."""
        ann = await self.talkers[0].register()
        await ann.create(self.channel)
        for client in (*self.talkers[1:], *self.listeners):
            await client.register()

    async def run(self, calm: Callable[[], bool]) -> None:
        """Talk and listen until it is calm, and then until everybody has everything; a bounded time."""
        async with asyncio.TaskGroup() as tasks:
            for listener in self.listeners:
                tasks.create_task(listener.run(self.channel, calm=calm, over=lambda: self._is_over))
            async with asyncio.TaskGroup() as talking:
                talking.create_task(self._trim(calm))
                for talker in self.talkers:
                    talking.create_task(talker.run(self.channel, self.log, self._padding, least=_MESSAGES, calm=calm))
            with suppress(AssertionError):  # the comparison reports what is missing
                await wait_until(self._all_have_received, timeout=_CATCH_UP_SECONDS)
            self._is_over = True

    def lose(self, before: dict[str, Row], after: dict[str, Row]) -> None:
        """Note what a failover takes: what the log had before, and what it has after it."""
        self.log.lose(before, after, {each for listener in self.listeners for each in listener.delivered})

    def check(self) -> list[str]:
        """Compare what each client received with the channel's log; returns what is wrong."""
        with self._store() as store:
            rows = self.log.rows(store)
        wrong = [f"{self.channel}: {flaw}" for flaw in judge.of_log(rows, self.log.acknowledged, self.log.losses)]
        for each in self.listeners:
            wrong += [f"{each.path}: {flaw}" for flaw in flaws(each.path, each.stays, rows, self.log.losses)]
            wrong += [f"{each.path}: got {event} outside of the channel" for event in each.unexpected]
        return wrong

    def figures(self) -> Counter[str]:
        """Count what happened."""
        stays = [stay for listener in self.listeners for stay in listener.stays]
        steps = [step for stay in stays for step in stay.steps]
        return Counter(
            {
                "channels": 1,
                "sessions": len(self.listeners) + len(self.talkers),
                "messages acknowledged": len(self.log.acknowledged),
                "messages lost by the store": len(self.log.losses.all),
                "deliveries": sum(isinstance(step, str) for step in steps),
                "joins with a position": sum(stay.request.since is not None for stay in stays),
                "joins without a position": sum(stay.request.since is None for stay in stays),
                "joins that were told of a loss": sum(stay.recovered is False for stay in stays),
                "gaps told": sum(isinstance(step, Gap) for step in steps),
                "leaves": sum(listener.leaves for listener in self.listeners),
                "connections dropped by clients": sum(listener.cuts for listener in self.listeners),
                "logins": sum(client.logins for client in (*self.listeners, *self.talkers)),
            }
        )

    async def close(self) -> None:
        await asyncio.gather(*(client.cut() for client in (*self.talkers, *self.listeners)))

    async def _trim(self, calm: Callable[[], bool]) -> None:
        """Keep little, as a small retention would."""
        while self._is_trimmed and not calm():
            await pause(self.chance.uniform(0.1, 0.6))
            with suppress(RedisError, OSError):
                await asyncio.to_thread(self._trim_once, self.chance.randint(1, 8))  # the server may be stopped

    def _trim_once(self, keep: int) -> None:
        with self._store() as store:
            self.log.trim(store, keep)

    def _all_have_received(self) -> bool:
        return all(listener.position == self.log.last_acknowledged for listener in self.listeners)
