"""A primary that Sentinels replace: when it dies, and when they are asked to."""

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path

from typing_extensions import override

from tests.chaos.topology import RelayNode, Store, Topology, nodes_at
from tests.support.redis_topologies import PASSWORD, Sentinels, sentinels
from tests.support.waiting import pause, wait_until

_REPLACED_SECONDS = 30.0
_DOWN_AFTER_MS = 4000
"""On a busy machine a server may be silent for some seconds."""


class Watched(Topology):
    """Nodes on a primary behind Sentinels, which they ask themselves.

    Whatever the primary has when it dies is known, because it refuses writes before; so it is known what was lost.
    """

    loses = True
    fails_over = True
    is_watched = True
    takes_replicaof = False

    def __init__(self, nodes: list[RelayNode], servers: Sentinels) -> None:
        super().__init__(nodes, [Store(process) for process in servers.servers])
        self._servers = servers
        self._expected = servers.primary

    @property
    @override
    def primary(self) -> Store:
        process = self._servers.primary
        return next(store for store in self.stores if store.process is process)

    @property
    @override
    def is_as_expected(self) -> bool:
        return self._servers.primary is self._expected

    @override
    def expect(self) -> None:
        self._expected = self._servers.primary

    @override
    @asynccontextmanager
    async def without_primary(self) -> AsyncIterator[None]:
        """Kill the primary, wait for another one, and start the old one again at the end, as its replica."""
        old = self.primary
        with self._fenced(old):
            old.process.kill()
            self._admit(old)
            await self._wait_for_another(old)
        try:
            yield
        finally:
            await old.process.restart()
            with old.client() as client:  # the Sentinels would tell it some seconds later
                client.replicaof(*self.primary.process.address)
            await self._in_step()

    @override
    async def fail_over(self, *, lag: float, keeps_old_connections: bool = False) -> None:
        old = self.primary
        if lag:
            self._cut_off(old)
            await pause(lag)
            async with self.without_primary():
                return
        await self._in_step()
        with self._fenced(old):
            self._servers.fail_over()
            await self._wait_for_another(old)
        with old.client() as client:
            client.config_set("min-replicas-to-write", 0)
        await self._in_step()

    async def _in_step(self) -> None:
        """Wait until both replicas have what the primary has now; it may go on meanwhile."""
        with self.store() as primary:
            offset = primary.info("replication")["master_repl_offset"]

        def is_in_step() -> bool:
            with self.store() as primary:
                state = primary.info("replication")
            replicas = [state.get(f"slave{number}") for number in range(len(self.stores) - 1)]
            return all(each and each["state"] == "online" and each["offset"] >= offset for each in replicas)

        await wait_until(is_in_step, timeout=_REPLACED_SECONDS, what="the replicas are in step")

    @contextmanager
    def _fenced(self, old: Store) -> Iterator[None]:
        """Let nobody write to a primary until another one has taken its place."""
        with old.client() as before:
            before.config_set("min-replicas-to-write", 9)  # a pause would hold up what Sentinels publish, too
            notes = [note(before) for note in self.on_failover]
        yield
        self._expected = self._servers.primary
        with self.primary.client() as after:
            for note in notes:
                note(after)

    async def _wait_for_another(self, old: Store) -> None:
        await wait_until(
            lambda: self.primary is not old, timeout=_REPLACED_SECONDS, what="another server is the primary"
        )

    def _cut_off(self, primary: Store) -> None:
        """Let the replicas get nothing more from it."""
        self._authenticate(primary, "wrong")
        with primary.client() as client:
            client.execute_command("CLIENT KILL TYPE", "replica")

    def _admit(self, primary: Store) -> None:
        self._authenticate(primary, PASSWORD)

    def _authenticate(self, primary: Store, password: str) -> None:
        for replica in self.stores:
            if replica is not primary:
                with replica.client() as client:
                    client.config_set("masterauth", password)


@asynccontextmanager
async def watched(directory: Path, *, installed: bool = False) -> AsyncIterator[Topology]:
    """Run nodes on a primary with two replicas and three Sentinels."""
    async with sentinels(directory, durable=True, down_after_ms=_DOWN_AFTER_MS) as servers, AsyncExitStack() as stack:
        yield Watched(await nodes_at(stack, servers.url, installed=installed), servers)
