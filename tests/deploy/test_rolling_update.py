"""A rolling update with the chart's settings loses no message, fails no login and causes no burst of logins."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from conclave.machine.config import Level
from conclave.machine.config_edit import set_default
from conclave.machine.locations import CONFIG_NAME
from tests.support.bridge_process import RawBridge, configure_home
from tests.support.chart import render
from tests.support.reconnecting_clients import NewUsers, Reader, ReconnectingClient, Sender, V1Sender, greatest_share
from tests.support.rollout import KILLED, Deployment, Pod, Settings
from tests.support.v2_peer import Json, V2Peer
from tests.support.waiting import pause, wait_until

SCALE = 0.5
"""Every time of the chart is halved: those of the drain, the probes and the grace period alike, and the clients' waits.

The time of a start or an answer is not halved, so a tight setting of the chart is even tighter here.
"""

READERS, SENDERS, V1_SENDERS = 24, 4, 2
BURST = 0.5
"""The share of sessions that may reconnect within a quarter of the drain's time."""


@pytest.fixture(scope="module")
def settings() -> Settings:
    return Settings.of(render(), SCALE)


class Load:
    """The clients during an update, and the flaws that they found."""

    def __init__(self, url: str, home: Path) -> None:
        self.url = url
        self.readers = [Reader(url, f"reader{n}", SCALE) for n in range(READERS)]
        self.senders = [Sender(url, f"sender{n}", SCALE) for n in range(SENDERS)]
        self.v1_senders = [V1Sender(url, f"v1sender{n}", SCALE) for n in range(V1_SENDERS)]
        self.new_users = NewUsers(url)
        self.bridges = [RawBridge(home / user, "--as", "me") for user in ("ann", "bob")]
        self.bridge_posted: list[str] = []
        """The texts that a bridge has posted, by its own report."""
        self._home = home
        self._calm = False

    @property
    def v2_clients(self) -> list[ReconnectingClient]:
        return [*self.readers, *self.senders]

    @property
    def clients(self) -> list[ReconnectingClient | V1Sender]:
        return [*self.v2_clients, *self.v1_senders]

    @asynccontextmanager
    async def going_on(self) -> AsyncIterator[None]:
        """Let all clients post and receive inside the `async with`; returns when all have received every message."""
        creator = await V2Peer.register(self.url, "creator")
        for channel in ("ops", "bridges"):
            await creator.create(channel)
        await creator.close()
        async with AsyncExitStack() as stack:
            for user, bridge in zip(("ann", "bob"), self.bridges, strict=True):
                await self._open(user, bridge, stack)
            async with asyncio.TaskGroup() as reading:
                tasks = [reading.create_task(each.run("ops")) for each in self.readers]
                async with asyncio.TaskGroup() as sending:
                    self._start(sending)
                    await wait_until(lambda: all(each.acknowledged for each in self.senders), what="all send")
                    yield
                    self._calm = True
                await self._wait_for_deliveries()
                for task in tasks:
                    task.cancel()
            await asyncio.gather(*(each.close() for each in self.clients))

    async def _open(self, user: str, bridge: RawBridge, stack: AsyncExitStack) -> None:
        home = self._home / user
        home.mkdir()
        set_default(home / CONFIG_NAME, Level.CONVERSE)
        await configure_home(home, user, self.url)
        await stack.enter_async_context(bridge)
        await bridge.tool("join_channel", channel="bridges")

    def _start(self, tasks: asyncio.TaskGroup) -> None:
        senders: list[Sender | V1Sender] = [*self.senders, *self.v1_senders]
        for sender in senders:
            tasks.create_task(sender.run("ops", 0.1, until=lambda: self._calm))
        tasks.create_task(self.new_users.run(0.1, until=lambda: self._calm))
        tasks.create_task(self._run_bridge())

    async def _run_bridge(self) -> None:
        count = 0
        while not self._calm:
            text = f"number {count}."
            answer, failed = await self.bridges[0].attempt("send_channel", channel="bridges", text=text)
            if not failed:
                assert answer == "sent to bridges"
                self.bridge_posted.append(text)
            count += 1
            await pause(0.3)

    async def _wait_for_deliveries(self) -> None:
        self.log, self.bridge_log = await self._logs()
        await wait_until(
            lambda: all(len(each.received) >= len(self.log) for each in self.readers),
            timeout=30,
            what=f"all {len(self.log)} messages are received: {[len(each.received) for each in self.readers]}",
        )
        await self.bridges[1].wait_for_event(self.bridge_log[-1]["body"]["text"])

    async def _logs(self) -> tuple[list[Json], list[Json]]:
        auditor = await V2Peer.register(self.url, "auditor")
        try:
            for channel in ("ops", "bridges"):
                await auditor.join(channel)
            return await auditor.history("ops"), await auditor.history("bridges")
        finally:
            await auditor.close()

    def flaws(self) -> Iterator[str]:
        """The losses of a client, in words."""
        yield from self.new_users.failures
        for each in self.clients:
            yield from each.failures
        texts = Counter(row["body"]["text"] for row in self.log)
        ids = [row["id"] for row in self.log]
        stored = {row["id"]: row["body"]["text"] for row in self.log}
        for sender in self.senders:
            yield from (f"{text} is not in the log" for sent, text in sender.acknowledged if stored.get(sent) != text)
        for v1_sender in self.v1_senders:
            yield from (f"{text} is not in the log" for text in v1_sender.acknowledged if text not in texts)
        yield from (f"{text} is in the log {times} times" for text, times in texts.items() if times > 1)
        for reader in self.readers:
            if reader.gaps or reader.received != ids:
                yield f"a reader received something else than the log, or was told of {reader.gaps} gaps"
        bridge_texts = [row["body"]["text"] for row in self.bridge_log]
        if not set(self.bridge_posted) <= set(bridge_texts) or len(bridge_texts) != len(set(bridge_texts)):
            yield f"a bridge sent {self.bridge_posted}, and the log has {bridge_texts}"
        received = [event["content"] for event in self.bridges[1].events if event["meta"]["kind"] == "channel"]
        if [f"number {text.split('number ')[1].split('.')[0]}." for text in received] != bridge_texts:
            yield f"a bridge received {received}, and the log has {bridge_texts}"


def closes(pod: Pod) -> list[float]:
    """The times at which a pod closed sessions because it ended, from its log."""
    events: list[Any] = [json.loads(line) for line in pod.node.log if line.startswith("{")]
    return [
        datetime.fromisoformat(event["timestamp"]).timestamp()
        for event in events
        if event["event"] == "session.closed" and event["reason"] == "shutdown"
    ]


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
        assert load.new_users.count > 50
        assert all(client.reconnected_at for client in load.v2_clients), "every client has moved"
        assert all(v1_sender.reconnects for v1_sender in load.v1_senders)
        assert [pod.status for pod in relay.gone] == [0] * settings.replicas, "ended by themselves, in time"
        assert [pod.status for pod in relay.pods] == [None] * settings.replicas, "none was restarted"
        for pod in relay.gone:
            assert len(closes(pod)) > 5, "enough to make a burst"
            assert greatest_share(closes(pod), settings.drain_seconds / 4) < BURST, (
                "one node's sessions leave one by one"
            )
        back = [at for client in load.v2_clients for at in client.reconnected_at]
        assert greatest_share(back, settings.drain_seconds / 4) < BURST, "and arrive at the others one by one"


def one_node(settings: Settings, **changes: Any) -> Settings:
    """The same for an update of a single node, with some changes."""
    return msgspec.structs.replace(settings, replicas=1, **changes)


async def test_without_the_delay_logins_fail(settings: Settings, redis_url: str) -> None:
    """The purpose of the delay; and proof that the test above would notice failed logins."""
    hasty = one_node(settings, environment={**settings.environment, "CONCLAVE_DRAIN_DELAY": "0"})
    async with Deployment(hasty, redis_url) as relay:
        new_users, done = NewUsers(relay.url), asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(new_users.run(0.05, until=done.is_set))
            await relay.update()
            done.set()
    assert new_users.failures


async def test_with_too_little_grace_sessions_are_cut(settings: Settings, redis_url: str) -> None:
    """The purpose of the margin: a killed node still has sessions, which get no reason."""
    short = one_node(settings, grace=settings.drain_seconds / 2)
    async with Deployment(short, redis_url) as relay:
        v2_clients = [ReconnectingClient(relay.url, f"user{n}", SCALE) for n in range(10)]
        for client in v2_clients:
            await client.register()
        await relay.update()
        assert [pod.status for pod in relay.gone] == [KILLED]
        assert len(closes(relay.gone[0])) < len(v2_clients)
        await asyncio.gather(*(client.close() for client in v2_clients))
