"""Nodes in this process and as processes of their own, and peers. Ask for peers after the nodes: they leave first."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.nodes import NodeProcess, cluster, running_node
from tests.support.peer import Peers
from tests.support.redis_server import RedisProcess
from tests.support.v2_peer import V2Peers

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what is in this folder."""
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker("trial")


@pytest.fixture
async def url(redis_url: str) -> AsyncIterator[str]:
    """One node in this process, on an empty server."""
    async with running_node(redis_url) as node:
        yield node


@pytest.fixture
async def nodes(redis_process: RedisProcess) -> AsyncIterator[list[NodeProcess]]:
    """Three processes on the test's own Redis."""
    async with cluster(redis_process.url) as running:
        yield running


@pytest.fixture
async def peers() -> AsyncIterator[Peers]:
    """Clients of protocol v1."""
    async with Peers() as peers:
        yield peers


@pytest.fixture
async def v2_peers() -> AsyncIterator[V2Peers]:
    """Clients of protocol v2."""
    async with V2Peers() as peers:
        yield peers
