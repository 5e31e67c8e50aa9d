"""Fixtures for every test: a real server that each test finds empty, and one of its own to break."""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.support.programs import end_fork_server
from tests.support.redis_server import RedisProcess
from tests.support.trials import FORM, Form

settings.register_profile("conclave", deadline=None, max_examples=FORM.value)  # an example may take as long as it does
settings.load_profile("conclave")


PROCESSES_PER_CORE = 2
"""Tests wait for other processes half of their time."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Say how many processes `-n auto` is."""
    return PROCESSES_PER_CORE * (os.cpu_count() or 1)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is long, unless this is `make trials`."""
    if FORM is Form.EXAMPLE:
        long = [item for item in items if item.get_closest_marker("long")]
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if not item.get_closest_marker("long")]


@pytest.fixture(scope="session", autouse=True)
def fork_server() -> Iterator[None]:
    """End the server that forks nodes and command lines; it starts when it is first needed."""
    yield
    end_fork_server()


@pytest.fixture(scope="session")
def shared_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisProcess]:
    """One server per test process (xdist worker), in memory only. Tests take `redis_url` instead."""
    server = RedisProcess(tmp_path_factory.mktemp("redis"), durable=False)
    loop = asyncio.new_event_loop()  # not asyncio.run: that would replace the loop of the tests that follow
    try:
        loop.run_until_complete(server.start())
        yield server
    finally:
        loop.close()
        server.close()


@pytest.fixture
def redis_url(shared_redis: RedisProcess) -> str:
    """The URL of an empty server that this test has to itself."""
    shared_redis.flush()
    return shared_redis.url


@pytest.fixture
async def redis_process(tmp_path: Path) -> AsyncIterator[RedisProcess]:
    """A started durable server of the test's own, on a Unix socket: to kill, pause and restart."""
    server = RedisProcess(tmp_path / "redis")
    try:
        await server.start()
        yield server
    finally:
        server.close()


@pytest.fixture
async def redis_process_tcp(tmp_path: Path) -> AsyncIterator[RedisProcess]:
    """The same on a TCP port, for a proxy in between."""
    server = RedisProcess(tmp_path / "redis", tcp=True)
    try:
        await server.start()
        yield server
    finally:
        server.close()
