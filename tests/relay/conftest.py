"""Nodes and peers for the tests of the relay. Ask for `peers` after the nodes: they are to leave first."""

from collections.abc import AsyncIterator

import pytest

from tests.support.nodes import running_node
from tests.support.peer import Peers


@pytest.fixture
async def url(redis_url: str) -> AsyncIterator[str]:
    """One node on an empty server."""
    async with running_node(redis_url) as node:
        yield node


@pytest.fixture
async def pair(redis_url: str) -> AsyncIterator[tuple[str, str]]:
    """Two nodes that share an empty server."""
    async with running_node(redis_url) as one, running_node(redis_url) as other:
        yield one, other


@pytest.fixture
async def peers() -> AsyncIterator[Peers]:
    """Logs peers in, and out again at the end of the test."""
    several = Peers()
    try:
        yield several
    finally:
        await several.close()
