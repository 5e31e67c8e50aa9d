"""Three real node processes on one real Redis, and clients of the original's protocol."""

from collections.abc import AsyncIterator

import pytest

from tests.support.nodes import NodeProcess, cluster
from tests.support.peer import Peers
from tests.support.redis_server import RedisProcess


@pytest.fixture
async def nodes(redis_process: RedisProcess) -> AsyncIterator[list[NodeProcess]]:
    """Three nodes on the test's own Redis."""
    async with cluster(redis_process.url) as running:
        yield running


@pytest.fixture
async def peers(nodes: list[NodeProcess]) -> AsyncIterator[Peers]:
    """Clients, closed before the nodes are: a relay that is asked to stop waits for its sessions."""
    assert nodes
    async with Peers() as peers:
        yield peers
