"""The broker: the order of messages, and a burst of them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from redis import Redis

from relay.observability.metrics import Metrics
from relay.redis import connect
from relay.redis.broker import Broker
from relay.redis.client import RedisClient
from relay.redis.connection import SocketConnection
from tests.support.waiting import wait_until

PUBLISH = "for number = 1, tonumber(ARGV[1]) do redis.call('PUBLISH', 'topic', number .. ARGV[2]) end"


@asynccontextmanager
async def subscribed(make: connect.Make) -> AsyncIterator[tuple[Broker, list[int]]]:
    """Subscribe to a topic. Yields the broker, and the numbers with which the messages begin."""
    client = RedisClient(make, timeout=10.0, metrics=Metrics(()))
    broker = Broker(client, confirm_timeout=10.0)
    serving = asyncio.create_task(broker.serve())
    received: list[int] = []
    try:
        await broker.subscribe("topic", lambda data: received.append(int(data.rstrip(b"x"))))
        yield broker, received
    finally:
        serving.cancel()
        await asyncio.wait([serving])


def publish(redis_url: str, count: int, padding: str = "") -> None:
    with Redis.from_url(redis_url) as redis:
        redis.eval(PUBLISH, 0, count, padding)


async def test_a_burst_leaves_turns_to_others_and_keeps_its_order(redis_url: str) -> None:
    """A thousand messages with many listeners each would keep every socket of the node waiting."""
    async with subscribed(connect.real(redis_url)) as (_, received):
        publish(redis_url, 1000)
        most = 0
        while len(received) < 1000:
            before = len(received)
            await asyncio.sleep(0)
            most = max(most, len(received) - before)
        assert received == list(range(1, 1001))
        assert most <= 64


async def test_what_is_not_handled_yet_waits_outside(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Handlers that are slower than Redis push back; the memory of a node does not grow."""
    most, hand_over = 0, SocketConnection._hand_over

    def measured(self: SocketConnection) -> None:
        nonlocal most
        most = max(most, self._reader.len())
        hand_over(self)

    monkeypatch.setattr(SocketConnection, "_hand_over", measured)
    async with subscribed(connect.real(redis_url)) as (_, received):
        publish(redis_url, 20_000, "x" * 200)
        await wait_until(lambda: len(received) == 20_000, what="all messages have come")
    assert received == list(range(1, 20_001))
    assert most < 3 * 64 * 1024


async def test_a_dropped_connection_is_replaced(redis_url: str) -> None:
    """Its topics are subscribed again, and the callbacks that fill gaps run."""
    async with subscribed(connect.real(redis_url)) as (broker, received):
        again: list[bool] = []
        broker.on_resubscribed(lambda _: again.append(broker.is_connected))
        broker.drop("it is deaf")
        assert not broker.is_connected
        await wait_until(lambda: again, what="the topic is subscribed again")
        assert again == [True]
        publish(redis_url, 2)
        await wait_until(lambda: received == [1, 2], what="messages come")


async def test_a_handler_that_fails_ends_the_node(redis_url: str) -> None:
    """A handler must not raise; a message that was not handled must not be skipped silently."""
    client = RedisClient(connect.real(redis_url), timeout=10.0, metrics=Metrics(()))
    broker = Broker(client, confirm_timeout=10.0)
    serving = asyncio.create_task(broker.serve())

    def fail(_: bytes) -> None:
        raise ZeroDivisionError

    await broker.subscribe("topic", fail)
    publish(redis_url, 1)
    with pytest.raises(ZeroDivisionError):
        async with asyncio.timeout(10):
            await serving
