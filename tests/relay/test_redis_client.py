"""The Redis client: its lanes, and its end."""

import asyncio
from typing import Any

import pytest

from relay.model.errors import StoreUnavailable
from relay.observability.metrics import Metrics
from relay.redis import connect
from relay.redis.client import RedisClient


async def test_a_lone_command_wakes_one_lane(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every lane that wakes costs a turn of the event loop, for each command of a quiet node."""
    wakes = 0

    class Counting(RedisClient):
        def _take(self) -> Any:
            nonlocal wakes
            wakes += 1
            return super()._take()

    client = Counting(connect.real(redis_url), timeout=2.0, metrics=Metrics(()))
    serving = asyncio.create_task(client.serve())
    await client.call("PING")
    before = wakes
    for _ in range(20):
        await client.call("PING")
    assert wakes - before == 20
    monkeypatch.setattr("relay.redis.client._PIPELINE_COMMANDS", 2)
    assert await asyncio.gather(*(client.call("ECHO", str(number)) for number in range(50))) == [
        str(number).encode() for number in range(50)
    ], "lanes that wake each other carry a burst that is longer than a pipeline"
    serving.cancel()
    await asyncio.wait([serving], timeout=10)


@pytest.mark.parametrize("turns", range(8))
async def test_it_ends_at_any_step_of_a_command(redis_url: str, turns: int) -> None:
    """A node that does not stop is killed by its supervisor, and its sessions get no reason of their close."""
    client = RedisClient(connect.real(redis_url), timeout=2.0, metrics=Metrics(()))
    serving = asyncio.create_task(client.serve())
    await client.call("PING")
    asked = client.call("SET", "x", "y" * 1000)
    for _ in range(turns):
        await asyncio.sleep(0)
    serving.cancel()
    ended, _ = await asyncio.wait([serving], timeout=10)
    assert ended
    await asyncio.wait([asked], timeout=10)
    assert asked.done()
    asked.exception()


async def test_a_command_after_its_end_fails_at_once(redis_url: str) -> None:
    """Sessions that are closed late send commands, too; these would delay the end of the process."""
    client = RedisClient(connect.real(redis_url), timeout=2.0, metrics=Metrics(()))
    serving = asyncio.create_task(client.serve())
    await client.call("PING")
    serving.cancel()
    await asyncio.wait([serving], timeout=10)
    with pytest.raises(StoreUnavailable):
        async with asyncio.timeout(10):
            await client.call("PING")
