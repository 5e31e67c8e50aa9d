"""`conclave-conformance` against three nodes behind a balancer."""

import pytest

from relay.launch.balancer import Balancer
from tests.support.conformance import examine
from tests.support.nodes import cluster
from tests.support.waiting import wait_until


@pytest.mark.long
async def test_three_nodes_behind_one_url_pass(redis_url: str) -> None:
    """The sessions of one check are on different nodes."""
    async with cluster(redis_url) as nodes, Balancer([node.host_and_port for node in nodes]) as balancer:
        await balancer.listen("127.0.0.1", 0)
        await wait_until(lambda: len(balancer.ready) == len(nodes), what="the balancer knows all nodes")
        code, out, _ = await examine("ws://{}:{}/".format(*balancer.address))
        assert code == 0, out
