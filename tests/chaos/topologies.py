"""All topologies that a run can have."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from tests.chaos.pair import pair
from tests.chaos.shards import shards
from tests.chaos.topology import Store, Topology, nodes_behind_proxies, started
from tests.chaos.watched import watched


@asynccontextmanager
async def one_server(directory: Path, *, installed: bool = False) -> AsyncIterator[Topology]:
    """Run nodes on one durable server."""
    async with AsyncExitStack() as stack:
        store = await started(stack, Store.durable(directory / "store"))
        yield Topology(await nodes_behind_proxies(stack, store, installed=installed), [store])


TOPOLOGIES = {"server": one_server, "pair": pair, "sentinel": watched, "cluster": shards}
