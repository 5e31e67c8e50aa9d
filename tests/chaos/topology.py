"""What is broken: relay nodes, each behind a proxy and with one before its store, and the store in one of its forms."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from redis import Redis

from tests.support.nodes import NodeProcess
from tests.support.proxy import Proxy
from tests.support.redis_server import RedisProcess
from tests.support.waiting import pause, wait_until

NODES = 3
_RESTART_SECONDS = 40.0
_MACHINES = ("x86_64-linux-gnu", "aarch64-linux-gnu")
_FAKETIME = [Path(f"/usr/lib/{machine}/faketime/libfaketime.so.1") for machine in _MACHINES]


class RelayNode:
    """A node; clients reach it through `front`, and it reaches the store through `back`."""

    def __init__(self, process: NodeProcess, front: Proxy, back: Proxy) -> None:
        self.process = process
        self.front = front
        self.back = back
        self.is_wanted = True
        """It should be running: a node that is wanted and does not run has ended of itself."""

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.front.port}/"

    async def end(self, end: Callable[[NodeProcess], Any]) -> None:
        """Kill or stop it."""
        self.is_wanted = False
        await end(self.process)

    async def restart(self) -> None:
        """Start it again, also if the store refuses it for a while."""
        async with asyncio.timeout(_RESTART_SECONDS):
            while not self.process.is_running:
                with contextlib.suppress(AssertionError):
                    await self.process.start()
        self.is_wanted = True


class Clock:
    """The clock of a server, through libfaketime: `offset` is a file that it reads once a second."""

    def __init__(self, offset: Path, library: Path) -> None:
        self._offset = offset
        self.environment = {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(offset),
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }
        self.set(0)

    @classmethod
    def of(cls, directory: Path) -> "Clock | None":
        """Return a clock, or None where libfaketime is not installed."""
        library = next((path for path in _FAKETIME if path.exists()), None)
        return None if library is None else cls(directory / "offset", library)

    def set(self, seconds: float) -> None:
        """Set the clock ahead by so much, or back."""
        written = self._offset.with_suffix(".new")
        written.write_text(f"{seconds:+g}\n")
        written.replace(self._offset)


class Store:
    """One server of the store."""

    def __init__(self, directory: Path, *settings: str) -> None:
        directory.mkdir(parents=True)
        self.clock = Clock.of(directory)
        self.process = RedisProcess(
            directory,
            tcp=True,
            settings=("--busy-reply-threshold", "100", *settings),
            environment=self.clock.environment if self.clock else {},
        )

    @contextmanager
    def client(self, timeout: float = 5.0) -> Iterator[Any]:
        """Open a client that no fault of the network concerns."""
        url = self.process.url
        with Redis.from_url(url, socket_timeout=timeout, socket_connect_timeout=timeout, retry=None) as client:
            yield client

    async def restart(self) -> None:
        """Kill it if it runs, and start it on the same files."""
        await self.process.restart()


class Topology:
    """Nodes on one server."""

    name = "server"
    loses = False
    """A failover may take acknowledged messages."""

    def __init__(self, nodes: list[RelayNode], stores: list[Store]) -> None:
        self.nodes = nodes
        self.stores = stores
        self.on_failover: list[Callable[[Any, Any], None]] = []
        """Called with clients of the old and of the new primary while nobody can write to either."""

    @property
    def primary(self) -> Store:
        """The server that takes writes."""
        return self.stores[0]

    @property
    def has_clocks(self) -> bool:
        return all(store.clock for store in self.stores)

    @contextmanager
    def store(self) -> Iterator[Any]:
        """Open a client of the primary."""
        with self.primary.client() as client:
            yield client

    def urls(self) -> list[str]:
        """The URLs of the nodes that run."""
        return [node.url for node in self.nodes if node.process.is_running]


class Pair(Topology):
    """Nodes on a primary with a replica; a failover is made by hand, and the nodes' proxies follow it."""

    name = "pair"
    loses = True

    def __init__(self, nodes: list[RelayNode], stores: list[Store], links: list[Proxy]) -> None:
        """`links[i]` leads to `stores[i]`: the other one replicates through it."""
        super().__init__(nodes, stores)
        self._links = links
        self._primary = 0

    @property
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

    async def fail_over(self, *, lag: float, keeps_old_connections: bool) -> None:
        """Promote the replica, which has not received anything for `lag` seconds.

        The nodes' connections break, or with `keeps_old_connections` stay with the old primary, a replica from now on.
        """
        old, new = self.primary, self.standby
        if lag:
            self._links[self._primary].stall()
            await pause(lag)
        else:
            await self.in_step()
        for node in self.nodes:
            node.back.lead_to(*new.process.address)
            if not keeps_old_connections:
                node.back.cut()
        with old.client() as before, new.client() as after:
            before.replicaof("127.0.0.1", "1")  # nobody can write to it any more; it keeps what it has
            after.replicaof("NO", "ONE")
            for note in self.on_failover:
                note(before, after)
        self._links[self._primary].reset()
        self._primary = 1 - self._primary
        for node in self.nodes:
            node.back.mend()
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
async def one_server(directory: Path, *, installed: bool = False) -> AsyncIterator[Topology]:
    """Run nodes on one durable server."""
    async with AsyncExitStack() as stack:
        store = await _start(stack, Store(directory / "store"))
        yield Topology(await _nodes(stack, store, installed=installed), [store])


@asynccontextmanager
async def pair(directory: Path, *, installed: bool = False) -> AsyncIterator[Topology]:
    """Run nodes on a primary, and a replica beside it."""
    async with AsyncExitStack() as stack:
        settings = ("--repl-diskless-sync-delay", "0", "--repl-backlog-size", "1mb")
        stores = [await _start(stack, Store(directory / f"store{i}", *settings)) for i in range(2)]
        links = [await stack.enter_async_context(Proxy(*store.process.address)) for store in stores]
        topology = Pair(await _nodes(stack, stores[0], installed=installed), stores, links)
        await topology.replicate()
        yield topology


TOPOLOGIES = {"server": one_server, "pair": pair}


async def _start(stack: AsyncExitStack, store: Store) -> Store:
    stack.callback(store.process.close)
    await store.process.start()
    return store


async def _nodes(stack: AsyncExitStack, store: Store, *, installed: bool) -> list[RelayNode]:
    return list(await asyncio.gather(*(_node(stack, store, installed=installed) for _ in range(NODES))))


async def _node(stack: AsyncExitStack, store: Store, *, installed: bool) -> RelayNode:
    back = await stack.enter_async_context(Proxy(*store.process.address))
    process = NodeProcess("--redis-url", f"redis://127.0.0.1:{back.port}", installed=installed)
    stack.push_async_callback(process.close)
    await process.start()
    front = await stack.enter_async_context(Proxy(*process.host_and_port))
    return RelayNode(process, front, back)
