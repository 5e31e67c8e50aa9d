"""Three real node processes on a real Redis, and clients of them."""

from collections.abc import AsyncIterator

import pytest

from tests.support.nodes import NodeProcess, cluster
from tests.support.peer import Peers


@pytest.fixture
async def nodes(redis_url: str) -> AsyncIterator[list[NodeProcess]]:
    """Three nodes on an empty Redis."""
    async with cluster(redis_url) as running:
        yield running


@pytest.fixture
async def peers(nodes: list[NodeProcess]) -> AsyncIterator[Peers]:
    """Clients, closed before the nodes are."""
    assert nodes
    async with Peers() as peers:
        yield peers
