"""The fixtures themselves: a chaos test proves nothing if its server does not fail as described."""

import asyncio

import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError

from tests.support.redis_server import RedisProcess
from tests.support.waiting import wait_until


@pytest.mark.parametrize("turn", [1, 2])
async def test_every_test_finds_an_empty_server(redis_url: str, turn: int) -> None:
    """After any earlier test."""
    async with Redis.from_url(redis_url) as client:
        assert await client.dbsize() == 0
        await client.set("turn", turn)


async def test_killed_server_is_away_and_comes_back_where_it_was(redis_process: RedisProcess) -> None:
    """With the same address, and with all that it acknowledged."""
    url = redis_process.url
    async with Redis.from_url(url, decode_responses=True, retry=None) as client:
        await client.set("kept", "yes")
        redis_process.kill()
        with pytest.raises(RedisError):
            await client.get("kept")
        await redis_process.restart()
        assert redis_process.url == url
        assert await client.get("kept") == "yes"


async def test_paused_server_hangs_until_it_is_resumed(redis_process_tcp: RedisProcess) -> None:
    """Unlike a dead one it keeps its connections."""
    assert redis_process_tcp.address[1] == redis_process_tcp.port
    async with Redis.from_url(redis_process_tcp.url) as client:
        await client.ping()
        redis_process_tcp.pause()
        answer = asyncio.ensure_future(client.ping())
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(answer), 0.2)
        redis_process_tcp.resume()
        assert await asyncio.wait_for(answer, 5)


async def test_a_timeout_names_its_condition() -> None:
    """A time-out without a subject costs the reader an hour."""
    with pytest.raises(AssertionError, match=r"waited 0\.01 s in vain: the moon"):
        await wait_until(lambda: False, timeout=0.01, what="the moon")
