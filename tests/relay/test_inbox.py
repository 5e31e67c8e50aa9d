"""Inboxes: no signal is lost or handled twice, whatever becomes of the server, and none ends the node."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest
from redis.asyncio import Redis

from relay.observability.metrics import Metrics
from relay.redis import connect, scripts
from relay.redis.client import RedisClient
from relay.redis.inbox import Inbox
from relay.redis.keys import Keys
from relay.redis.node_names import new_node_name, signals_version
from relay.redis.signals import Signal, Supersede, Whisper, encoded
from tests.support.waiting import wait_until

NODE = new_node_name()
KEY = Keys("conclave").inbox(NODE)
LATER_MS = 10**14
"""A time that no clock shows yet."""


class Mailbox:
    """The inbox of a node, open and served, and the signals that were handled."""

    def __init__(self, client: RedisClient, inbox: Inbox, redis: Redis, metrics: Metrics) -> None:
        self.client = client
        self.inbox = inbox
        self.redis = redis
        self.metrics = metrics
        self.handled: list[Signal] = []
        self.lost = 0
        """The times that the node was told of the loss of its inbox."""

    def handle(self, signal: Signal) -> bool:
        self.handled.append(signal)
        if signal == Supersede("defect"):
            raise ValueError("a defect")
        return True

    def lose(self) -> None:
        self.lost += 1

    async def gets(self, *connections: str) -> None:
        """Wait until the last signals were these, and no others."""
        expected = [Supersede(connection) for connection in connections]
        await wait_until(lambda: self.handled == expected, what=f"exactly {connections} are handled")

    async def write(self, connection: str, entry_id: str = "*") -> None:
        """Write a signal as a node does that knows nothing of open inboxes."""
        await self.redis.xadd(KEY, {"s": encoded(Supersede(connection))}, id=entry_id)

    async def cut(self) -> None:
        """Cut all connections of the node."""
        await self.redis.client_kill_filter(_type="normal", skipme=True)

    async def is_empty(self) -> bool:
        return await self.redis.xlen(KEY) == 0

    def unreadable(self) -> float | None:
        return self.metrics.registry.get_sample_value("conclave_unreadable_total", {"where": "inbox"})


@pytest.fixture
async def box(redis_url: str) -> AsyncIterator[Mailbox]:
    metrics = Metrics(scripts.NAMES)
    client = RedisClient(connect.real(redis_url), timeout=5.0, metrics=metrics)
    serving = [asyncio.create_task(client.serve())]
    async with Redis.from_url(redis_url) as redis:
        inbox = Inbox(client, Keys("conclave"))
        box = Mailbox(client, inbox, redis, metrics)
        await inbox.switch_to(NODE)
        serving.append(asyncio.create_task(inbox.serve(box.handle, box.lose)))
        try:
            yield box
        finally:
            for task in serving:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task


async def test_signals_with_earlier_ids_are_handled_after_a_failover(box: Mailbox) -> None:
    """The clock of the server that took over is behind, or that of this one went back while the inbox was gone."""
    await box.write("one", f"{LATER_MS}-0")
    await box.gets("one")
    await box.redis.delete(KEY)
    await box.write("two", "5-0")
    await box.cut()
    await box.gets("one", "two")
    await box.write("three", "6-0")
    await box.gets("one", "two", "three")


async def test_handled_signals_are_not_handled_again_after_a_failover(box: Mailbox) -> None:
    """The replica that was promoted did not have their removal yet."""
    await box.write("one")
    await box.write("two")
    before = await box.redis.dump(KEY)
    await box.gets("one", "two")
    await wait_until(box.is_empty, what="handled signals are removed")
    assert before is not None
    await box.redis.restore(KEY, 0, before, replace=True)
    await box.cut()
    await box.write("three")
    await box.gets("one", "two", "three")


async def test_nothing_is_put_into_an_inbox_that_is_not_open(box: Mailbox) -> None:
    """What nobody reads must not count as sent. The node opens its inbox again if it was lost."""
    assert await box.inbox.send(new_node_name(), Supersede("nobody")) is None
    await box.redis.delete(KEY)
    assert await box.inbox.send(NODE, Supersede("lost")) is None

    async def sends() -> bool:
        return await box.inbox.send(NODE, Supersede("one")) is not None

    await wait_until(sends, what="the inbox is open again")
    await box.gets("one")
    assert await box.redis.ttl(KEY) > 0
    assert box.lost == 1, "a supersede may be among what nobody could send: the leases tell"


async def test_an_inbox_is_read_to_its_end_before_it_is_closed(box: Mailbox) -> None:
    """A node that was evicted has a new name, and there may be more in the old inbox than one read brings."""
    former = new_node_name()
    await box.inbox.switch_to(former)
    await box.inbox.switch_to(NODE)
    names = [str(number) for number in range(300)]
    for name in names:
        assert await box.inbox.send(former, Supersede(name)) is not None
    await box.inbox.close(former)
    await box.gets(*names)
    assert await box.inbox.send(former, Supersede("late")) is None
    assert not await box.redis.exists(Keys("conclave").inbox(former))


async def test_an_entry_that_cannot_be_read_is_counted_and_skipped(box: Mailbox) -> None:
    """A later version wrote it. The node must go on: a rolling update would end all nodes of the earlier version."""
    for data in (b"", b"\xc1", b"\x82\xa4type\xa7unknown\xa1x\x01", b"\x81\xa4type\xa9supersede"):
        await box.redis.xadd(KEY, {"s": data})
    await box.redis.xadd(KEY, {"t": b"another field"})
    await box.redis.xadd(KEY, {"n": b"1", "s": encoded(Supersede("one"))})
    await box.redis.xadd(KEY, {"s": b"\x83\xa4type\xa9supersede\xaaconnection\xa3two\xa3new\x01", "n": b"1"})
    await box.gets("one", "two")
    assert box.unreadable() == 5


async def test_a_signal_that_cannot_be_handled_does_not_stop_the_others(box: Mailbox) -> None:
    """A defect costs one signal."""
    await box.write("defect")
    await box.write("one")
    await box.gets("defect", "one")


async def test_a_whisper_that_no_node_takes_is_not_known_to_be_delivered(
    box: Mailbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The node was stopped, or has died a moment ago: its inbox is there, and nobody reads it."""
    monkeypatch.setattr("relay.redis.inbox._RECEIPT_SECONDS", 0.2)
    stopped = new_node_name()
    await Inbox(box.client, Keys("conclave")).switch_to(stopped)
    whisper = Whisper("c", "ann/laptop/main", "bob/laptop/main", b"psst", "w1")
    assert (await box.inbox.whisper(stopped, whisper)).outcome == "unknown"
    assert (await box.inbox.whisper(new_node_name(), whisper)).outcome == "closed"
    assert (await box.inbox.whisper(NODE, whisper)).outcome == "taken"


async def test_a_node_of_the_first_version_answers_no_whisper(box: Mailbox) -> None:
    """During a rolling update an entry in its inbox is all that the sender can know."""
    old = "0123456789ab"
    whisper = Whisper("c", "ann/laptop/main", "bob/laptop/main", b"psst", "w1")
    assert (await box.inbox.whisper(old, whisper)).outcome == "taken"
    assert await box.redis.xlen(Keys("conclave").inbox(old)) == 1
    assert [signals_version(node) for node in (old, NODE, f"{old}-17", "x-y")] == [1, 2, 17, 1]
