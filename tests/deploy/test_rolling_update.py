"""A rolling update with the chart's settings loses no message, fails no login and causes no crowd."""

import asyncio
import json
from bisect import bisect_right
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from conclave.machine.config import Level
from conclave.machine.config_edit import set_default
from conclave.machine.locations import CONFIG_NAME
from tests.support.bridge_process import RawBridge, settle_in
from tests.support.chart import render
from tests.support.reconnecting_clients import Guest, Listener, Newcomers, OldSpeaker, Speaker
from tests.support.rollout import KILLED, Deployment, Pod, Settings
from tests.support.v2_peer import Json, V2Peer
from tests.support.waiting import pause, wait_until

SCALE = 0.5
"""Every time of the chart is halved: those of the drain, the probes and the grace period alike, and the clients' waits.

The time of a start or an answer is not halved, so a tight setting of the chart is even tighter here.
"""

LISTENERS, SPEAKERS, OLD_SPEAKERS = 24, 4, 2
CROWD = 0.5
"""The share of sessions that may reconnect within a quarter of the drain's time."""


@pytest.fixture(scope="module")
def settings() -> Settings:
    return Settings.of(render(), SCALE)


class Load:
    """The clients during an update, and the flaws that they found."""

    def __init__(self, url: str, home: Path) -> None:
        self.url = url
        self.listeners = [Listener(url, f"listener{n}", SCALE) for n in range(LISTENERS)]
        self.speakers = [Speaker(url, f"speaker{n}", SCALE) for n in range(SPEAKERS)]
        self.old_speakers = [OldSpeaker(url, f"old{n}", SCALE) for n in range(OLD_SPEAKERS)]
        self.newcomers = Newcomers(url)
        self.bridges = [RawBridge(home / user, "--as", "me") for user in ("ann", "bob")]
        self.agreed: list[str] = []
        """The texts that a bridge has posted, by its own report."""
        self._home = home
        self._calm = False

    @property
    def guests(self) -> list[Guest]:
        return [*self.listeners, *self.speakers]

    @property
    def everybody(self) -> list[Guest | OldSpeaker]:
        return [*self.guests, *self.old_speakers]

    @asynccontextmanager
    async def going_on(self) -> AsyncIterator[None]:
        """Let all clients post and receive inside the `async with`; returns when all have received every message."""
        reader = await V2Peer.register(self.url, "reader")
        for channel in ("plaza", "desk"):
            await reader.create(channel)
        await reader.close()
        async with AsyncExitStack() as stack:
            for user, bridge in zip(("ann", "bob"), self.bridges, strict=True):
                await self._open(user, bridge, stack)
            async with asyncio.TaskGroup() as listening:
                tasks = [listening.create_task(each.listen("plaza")) for each in self.listeners]
                async with asyncio.TaskGroup() as talking:
                    self._talk(talking)
                    await wait_until(lambda: all(each.acknowledged for each in self.speakers), what="all talk")
                    yield
                    self._calm = True
                await self._settle()
                for task in tasks:
                    task.cancel()
            await asyncio.gather(*(each.leave() for each in self.everybody))

    async def _open(self, user: str, bridge: RawBridge, stack: AsyncExitStack) -> None:
        home = self._home / user
        home.mkdir()
        set_default(home / CONFIG_NAME, Level.CONVERSE)
        await settle_in(home, user, self.url)
        await stack.enter_async_context(bridge)
        await bridge.tool("join_channel", channel="desk")

    def _talk(self, tasks: asyncio.TaskGroup) -> None:
        speakers: list[Speaker | OldSpeaker] = [*self.speakers, *self.old_speakers]
        for speaker in speakers:
            tasks.create_task(speaker.speak("plaza", 0.1, until=lambda: self._calm))
        tasks.create_task(self.newcomers.come(0.1, until=lambda: self._calm))
        tasks.create_task(self._bridge_talks())

    async def _bridge_talks(self) -> None:
        count = 0
        while not self._calm:
            text = f"number {count}."
            answer, failed = await self.bridges[0].attempt("send_channel", channel="desk", text=text)
            if not failed:
                assert answer == "sent to desk"
                self.agreed.append(text)
            count += 1
            await pause(0.3)

    async def _settle(self) -> None:
        self.log, self.desk = await self._logs()
        await wait_until(
            lambda: all(len(each.heard) >= len(self.log) for each in self.listeners),
            timeout=30,
            what=f"all {len(self.log)} messages are heard: {[len(each.heard) for each in self.listeners]}",
        )
        await self.bridges[1].hear(self.desk[-1]["body"]["text"])

    async def _logs(self) -> tuple[list[Json], list[Json]]:
        reader = await V2Peer.register(self.url, "second-reader")
        try:
            for channel in ("plaza", "desk"):
                await reader.join(channel)
            return await reader.history("plaza"), await reader.history("desk")
        finally:
            await reader.close()

    def flaws(self) -> Iterator[str]:
        """The losses of a client, in words."""
        yield from self.newcomers.failures
        for each in self.everybody:
            yield from each.failures
        texts = Counter(row["body"]["text"] for row in self.log)
        ids = [row["id"] for row in self.log]
        said = {row["id"]: row["body"]["text"] for row in self.log}
        for speaker in self.speakers:
            yield from (f"{text} is not in the log" for sent, text in speaker.acknowledged if said.get(sent) != text)
        for old in self.old_speakers:
            yield from (f"{text} is not in the log" for text in old.acknowledged if text not in texts)
        yield from (f"{text} is in the log {times} times" for text, times in texts.items() if times > 1)
        for listener in self.listeners:
            if listener.gaps or listener.heard != ids:
                yield f"a listener heard something else than the log, or was told of {listener.gaps} gaps"
        desk = [row["body"]["text"] for row in self.desk]
        if not set(self.agreed) <= set(desk) or len(desk) != len(set(desk)):
            yield f"a bridge said {self.agreed}, and the log has {desk}"
        heard = [event["content"] for event in self.bridges[1].events if event["meta"]["kind"] == "channel"]
        if [f"number {text.split('number ')[1].split('.')[0]}." for text in heard] != desk:
            yield f"a bridge heard {heard}, and the log has {desk}"


def closes(pod: Pod) -> list[float]:
    """The times at which a pod closed sessions because it ended, from its log."""
    events: list[Any] = [json.loads(line) for line in pod.node.log if line.startswith("{")]
    return [
        datetime.fromisoformat(event["timestamp"]).timestamp()
        for event in events
        if event["event"] == "session.closed" and event["reason"] == "shutdown"
    ]


def crowd(moments: Sequence[float], seconds: float) -> float:
    """Return the greatest share of moments within this number of seconds."""
    moments = sorted(moments)
    return max(bisect_right(moments, at + seconds) - n for n, at in enumerate(moments)) / len(moments)


@pytest.mark.timeout(180)
async def test_a_rolling_update_loses_no_message_and_fails_no_login(
    settings: Settings, redis_url: str, tmp_path: Path
) -> None:
    """Deploys happen at noon. Every acknowledged message arrives, and every login succeeds at its first attempt."""
    async with Deployment(settings, redis_url) as relay:
        load = Load(relay.url, tmp_path)
        async with load.going_on():
            await relay.update()
        flaws = list(load.flaws())
        assert flaws == [], f"{len(flaws)} flaws"
        assert load.newcomers.count > 50
        assert all(guest.back_at for guest in load.guests), "everybody was moved"
        assert all(old.returns for old in load.old_speakers)
        assert [pod.status for pod in relay.gone] == [0] * settings.replicas, "ended by themselves, in time"
        assert [pod.status for pod in relay.pods] == [None] * settings.replicas, "none was restarted"
        for pod in relay.gone:
            assert len(closes(pod)) > 5, "enough to make a crowd"
            assert crowd(closes(pod), settings.drain_seconds / 4) < CROWD, "one node's sessions leave one by one"
        back = [at for guest in load.guests for at in guest.back_at]
        assert crowd(back, settings.drain_seconds / 4) < CROWD, "and come to the others one by one"


def one_node(settings: Settings, **changes: Any) -> Settings:
    """The same for an update of a single node, with some changes."""
    return msgspec.structs.replace(settings, replicas=1, **changes)


async def test_without_the_delay_logins_fail(settings: Settings, redis_url: str) -> None:
    """The purpose of the delay; and proof that the test above would notice failed logins."""
    hasty = one_node(settings, environment={**settings.environment, "CONCLAVE_DRAIN_DELAY": "0"})
    async with Deployment(hasty, redis_url) as relay:
        newcomers, done = Newcomers(relay.url), asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(newcomers.come(0.05, until=done.is_set))
            await relay.update()
            done.set()
    assert newcomers.failures


async def test_with_too_little_grace_sessions_are_cut(settings: Settings, redis_url: str) -> None:
    """The purpose of the margin: a killed node still has sessions, which get no reason."""
    short = one_node(settings, grace=settings.drain_seconds / 2)
    async with Deployment(short, redis_url) as relay:
        guests = [Guest(relay.url, f"guest{n}", SCALE) for n in range(10)]
        for guest in guests:
            await guest.arrive()
        await relay.update()
        assert [pod.status for pod in relay.gone] == [KILLED]
        assert len(closes(relay.gone[0])) < len(guests)
        await asyncio.gather(*(guest.leave() for guest in guests))
