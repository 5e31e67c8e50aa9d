"""Nodes on a primary behind Sentinels: a failover is an outage, whose end the nodes find by themselves."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from relay.model.errors import StoreUnavailable
from relay.observability.metrics import Metrics
from relay.redis import connect
from relay.redis.client import RedisClient
from tests.support.nodes import running_node
from tests.support.peer import Peers, are_served
from tests.support.redis_topologies import PASSWORD, SENTINEL_PASSWORD, Sentinels, sentinels
from tests.support.traffic import Poster, assert_all_delivered
from tests.support.waiting import wait_until


@pytest.fixture
async def topology(tmp_path: Path) -> AsyncIterator[Sentinels]:
    async with sentinels(tmp_path) as topology:
        yield topology


def kill(topology: Sentinels) -> None:
    topology.primary.kill()


def fail_over(topology: Sentinels) -> None:
    topology.fail_over()


@pytest.mark.parametrize("change", [kill, fail_over])
async def test_nodes_follow_the_primary(topology: Sentinels, change: Callable[[Sentinels], None]) -> None:
    """Sessions outlive the failover, and live delivery goes on without a loss or a repeat."""
    former = topology.primary
    async with running_node(topology.url) as one, running_node(topology.url) as other, Peers() as peers:
        ann = await peers.register_creator(one, "ann", "ops")
        bob = await peers.register(other, "bob")
        await bob.join("ops")
        poster = Poster(ann, "ops", "ann")
        await wait_until(poster.post_next, what="a post is acknowledged")
        await topology.in_step()
        change(topology)
        await wait_until(lambda: topology.primary is not former, timeout=30, what="another server is the primary")
        await wait_until(lambda: are_served(ann, bob), timeout=30, what="both nodes are on the new primary")
        for _ in range(3):
            await wait_until(poster.post_next, what="a post is acknowledged")
        await assert_all_delivered([poster], [bob], ann, "ops")
        assert await ann.who() == await bob.who() == ["ann/laptop/main", "bob/laptop/main"]


async def reason(url: str) -> str:
    """Return the reason for which no connection is made."""
    client = RedisClient(connect.real(url), timeout=20.0, metrics=Metrics(()))
    with pytest.raises(StoreUnavailable) as raised:
        await client.connection()
    assert PASSWORD not in raised.value.why
    assert SENTINEL_PASSWORD not in raised.value.why
    return raised.value.why


async def test_a_sentence_says_what_is_wrong(topology: Sentinels) -> None:
    """An operator sees it as the reason for which a node waits."""
    first, second, third = topology.sentinels
    unknown = await reason(topology.url_of(first, second, service="other"))
    assert unknown == (
        "MasterNotFoundError: no primary of `other`: "
        f"service unknown (Sentinel 127.0.0.1:{first.port}, 127.0.0.1:{second.port})"
    )
    refused = await reason(topology.url.replace(SENTINEL_PASSWORD, "wrong"))
    assert "no primary of `conclave`: AuthenticationError: " in refused
    assert (await reason(topology.url.replace(PASSWORD, "wrong"))).startswith("AuthenticationError: ")
    third.kill()
    gone = await reason(topology.url_of(third))
    assert gone.endswith(f"no primary of `conclave`: no answer (Sentinel 127.0.0.1:{third.port})")
    for server in topology.servers:
        server.kill()
    await wait_until(lambda: _says_down(topology.url_of(first)), what="the Sentinel knows that the primary is down")


async def _says_down(url: str) -> bool:
    return "primary down (Sentinel " in await reason(url)


async def test_one_sentinel_that_answers_is_enough(topology: Sentinels) -> None:
    """One of the others is dead, and one takes connections and says nothing."""
    first, second, third = topology.sentinels
    first.kill()
    second.pause()
    try:
        async with running_node(topology.url_of(first, second, third)) as node, Peers() as peers:
            await peers.register(node, "ann")
    finally:
        second.resume()
