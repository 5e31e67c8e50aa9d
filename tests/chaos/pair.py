"""A primary and a replica, and failovers by hand."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from typing_extensions import override

from tests.chaos.topology import RelayNode, Store, Topology, nodes_behind_proxies, started
from tests.support.proxy import Proxy
from tests.support.waiting import pause, wait_until


class Pair(Topology):
    """Nodes on a primary with a replica; a failover is made by hand, and the nodes' proxies follow it."""

    loses = True
    fails_over = True

    def __init__(self, nodes: list[RelayNode], stores: list[Store], links: list[Proxy]) -> None:
        """`links[i]` leads to `stores[i]`: the other one replicates through it."""
        super().__init__(nodes, stores)
        self._links = links
        self._primary = 0

    @property
    @override
    def primary(self) -> Store:
        return self.stores[self._primary]

    @property
    def standby(self) -> Store:
        """The server that copies the primary."""
        return self.stores[1 - self._primary]

    async def replicate(self) -> None:
        """Have the other server copy the primary, and wait until it is in step."""
        with self.standby.client() as replica:
            replica.replicaof("127.0.0.1", str(self._links[self._primary].port))
        await self.in_step()

    async def in_step(self) -> None:
        await wait_until(self._is_in_step, timeout=30, what="the replica is in step")

    @override
    async def fail_over(self, *, lag: float, keeps_old_connections: bool = False) -> None:
        old, new = self.primary, self.standby
        if lag:
            self._links[self._primary].stall()
            await pause(lag)
        else:
            await self.in_step()
        for back in self.backs:
            back.lead_to(*new.process.address)
            if not keeps_old_connections:
                back.cut()
        with old.client() as before, new.client() as after:
            before.replicaof("127.0.0.1", "1")  # nobody can write to it any more; it keeps what it has
            after.replicaof("NO", "ONE")
            for note in self.on_failover:
                note(before)(after)
        self._links[self._primary].reset()
        self._primary = 1 - self._primary
        for back in self.backs:
            back.mend()
        await self.replicate()

    def _is_in_step(self) -> bool:
        with self.store() as primary, self.standby.client() as replica:
            link, source = replica.info("replication"), primary.info("replication")
        return bool(
            link.get("master_link_status") == "up"
            and link["master_replid"] == source["master_replid"]
            and link["slave_repl_offset"] >= source["master_repl_offset"]
        )


@asynccontextmanager
async def pair(directory: Path, *, installed: bool = False) -> AsyncIterator[Topology]:
    """Run nodes on a primary, and a replica beside it."""
    async with AsyncExitStack() as stack:
        settings = ("--repl-diskless-sync-delay", "0", "--repl-backlog-size", "1mb")
        stores = [await started(stack, Store.durable(directory / f"store{i}", *settings)) for i in range(2)]
        links = [await stack.enter_async_context(Proxy(*store.process.address)) for store in stores]
        topology = Pair(await nodes_behind_proxies(stack, stores[0], installed=installed), stores, links)
        await topology.replicate()
        yield topology
