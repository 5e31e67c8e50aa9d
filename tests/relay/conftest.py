"""Nodes and peers for the tests of the relay. Ask for `peers` after the nodes: they are to leave first."""

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.support.directory import Store
from tests.support.moderation import ROOT
from tests.support.nodes import running_node
from tests.support.peer import Peer, Peers
from tests.support.v2_peer import V2Peers


@pytest.fixture
async def url(redis_url: str) -> AsyncIterator[str]:
    """One node on an empty server."""
    async with running_node(redis_url) as node:
        yield node


@pytest.fixture
async def peers() -> AsyncIterator[Peers]:
    """Logs peers in, and out again at the end of the test."""
    async with Peers() as peers:
        yield peers


@pytest.fixture
async def pair(redis_url: str) -> AsyncIterator[tuple[str, str]]:
    """Two nodes of which root is an admin."""
    async with running_node(redis_url, admins=ROOT) as one, running_node(redis_url, admins=ROOT) as other:
        yield one, other


@pytest.fixture
async def ann(pair: tuple[str, str], peers: Peers) -> Peer:
    return await peers.register(pair[0], "ann")


@pytest.fixture
async def bob(pair: tuple[str, str], peers: Peers) -> Peer:
    return await peers.register(pair[1], "bob")


@pytest.fixture
async def cid(pair: tuple[str, str], peers: Peers) -> Peer:
    return await peers.register(pair[1], "cid")


@pytest.fixture
def store(redis_url: str) -> Iterator[Store]:
    store = Store(redis_url)
    yield store
    store.snapshot()
    store.close()


@pytest.fixture
async def v2_peers() -> AsyncIterator[V2Peers]:
    """The same for protocol v2."""
    async with V2Peers() as peers:
        yield peers
