"""A store with a replica that takes over without the last writes, as a failover may be."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from redis import Redis

from tests.support.proxy import Proxy
from tests.support.replica import Pair, replicated


class FailoverStore:
    """A primary and its replica. Each node reaches whichever is the primary through a front of its own."""

    def __init__(self, pair: Pair, fronts: list[Proxy]) -> None:
        self._pair = pair
        self._fronts = fronts
        self.primary_url = pair.primary.url

    def url(self, node: int) -> str:
        """Return the URL for a node."""
        return f"redis://127.0.0.1:{self._fronts[node].port}"

    def cut_off(self, node: int) -> None:
        """Hold back all that goes to and from a node. What is held back when the primary dies is lost."""
        self._fronts[node].stall()

    async def stop_replication(self) -> None:
        """Have the replica get all writes so far, and none from now on."""
        await self._pair.in_step()
        self._pair.link.stall()

    def fail_over(self, *, without: Sequence[int] = ()) -> None:
        """Kill the primary and promote the replica. Some nodes stay without a store until `let_back`."""
        for front in self._fronts:
            front.cut()
            front.point_to(*self._pair.replica.address)
        self._pair.primary.kill()
        with Redis.from_url(self._pair.replica.url) as store:
            store.replicaof("NO", "ONE")
        self.primary_url = self._pair.replica.url
        for node in set(range(len(self._fronts))) - set(without):
            self._fronts[node].mend()

    def let_back(self, node: int) -> None:
        """Let a node reach the promoted server."""
        self._fronts[node].mend()


@asynccontextmanager
async def failover_store(directory: Path, *, nodes: int) -> AsyncIterator[FailoverStore]:
    """Run a primary with a replica in step, behind a front for each of so many nodes."""
    async with replicated(directory) as pair, AsyncExitStack() as stack:
        fronts = [await stack.enter_async_context(Proxy(*pair.primary.address)) for _ in range(nodes)]
        yield FailoverStore(pair, fronts)
