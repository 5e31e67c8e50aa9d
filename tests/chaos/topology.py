"""What is broken: relay nodes, each behind a proxy and with one before its store, and servers of a store."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Self

from tests.support.nodes import NodeProcess
from tests.support.proxy import Proxy
from tests.support.redis_server import RedisProcess

NODES = 3
_RESTART_SECONDS = 40.0
_MACHINES = ("x86_64-linux-gnu", "aarch64-linux-gnu")
_FAKETIME = [Path(f"/usr/lib/{machine}/faketime/libfaketime.so.1") for machine in _MACHINES]


class RelayNode:
    """A node; clients reach it through `front`, and it reaches the store through `back`."""

    def __init__(self, process: NodeProcess, front: Proxy, back: Proxy | None) -> None:
        """`back` is None where the nodes find the servers of the store by themselves."""
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
    """One server of the store; `clock` is None if it has that of the machine."""

    def __init__(self, process: RedisProcess, clock: Clock | None = None) -> None:
        self.process = process
        self.clock = clock

    @classmethod
    def durable(cls, directory: Path, *settings: str) -> Self:
        """Make a server that writes before it replies, with a clock of its own if there can be one."""
        directory.mkdir(parents=True)
        clock = Clock.of(directory)
        environment = clock.environment if clock else {}
        return cls(RedisProcess(directory, tcp=True, settings=settings, environment=environment), clock)

    @contextmanager
    def client(self, timeout: float = 5.0) -> Iterator[Any]:
        """Open a client that no fault of the network concerns."""
        with self.process.client(timeout) as client:
            yield client

    async def restart(self) -> None:
        """Kill it if it runs, and start it on the same files."""
        await self.process.restart()


Note = Callable[[Any], None]
"""Called with a client of the new primary."""


class Topology:
    """Nodes on one server."""

    loses = False
    """A failover may take acknowledged messages."""
    fails_over = False
    takes_replicaof = True
    """It may be told to be a replica."""
    is_watched = False
    """Somebody replaces a primary that does not answer."""

    def __init__(self, nodes: list[RelayNode], stores: list[Store]) -> None:
        self.nodes = nodes
        self.stores = stores
        self.on_failover: list[Callable[[Any], Note]] = []
        """Called with a client of the old primary once nobody can write to it any more."""

    @property
    def primary(self) -> Store:
        """The server that takes writes, or one of them."""
        return self.stores[0]

    @property
    def has_clocks(self) -> bool:
        return all(store.clock for store in self.stores)

    @property
    def is_as_expected(self) -> bool:
        """Tell whether no server has been replaced but by a fault; else nobody knows what was lost."""
        return True

    def expect(self) -> None:
        """Take the servers as they are now for what is expected."""

    @property
    def backs(self) -> list[Proxy]:
        """The proxies between the nodes and the store."""
        return [node.back for node in self.nodes if node.back is not None]

    @contextmanager
    def store(self) -> Iterator[Any]:
        """Open a client of the whole store."""
        with self.primary.client() as client:
            yield client

    @asynccontextmanager
    async def without_primary(self) -> AsyncIterator[None]:
        """Kill the primary, and start it again at the end."""
        store = self.primary
        store.process.kill()
        try:
            yield
        finally:
            await store.process.restart()

    async def fail_over(self, *, lag: float, keeps_old_connections: bool = False) -> None:
        """Make another server the primary, which has received nothing for `lag` seconds.

        The nodes' connections break, or with `keeps_old_connections` stay with the old primary, a replica from now on.
        """
        raise NotImplementedError

    def urls(self) -> list[str]:
        """The URLs of the nodes that run."""
        return [node.url for node in self.nodes if node.process.is_running]


async def started(stack: AsyncExitStack, store: Store) -> Store:
    """Start a server, which ends with the stack."""
    stack.callback(store.process.close)
    await store.process.start()
    return store


async def nodes_at(stack: AsyncExitStack, url: str, *, installed: bool) -> list[RelayNode]:
    """Start nodes that find the store by themselves; they end with the stack."""
    return list(await asyncio.gather(*(_node(stack, url, None, installed=installed) for _ in range(NODES))))


async def nodes_behind_proxies(stack: AsyncExitStack, store: Store, *, installed: bool) -> list[RelayNode]:
    """Start nodes, each with a proxy between it and one server; they end with the stack."""
    backs = [await stack.enter_async_context(Proxy(*store.process.address)) for _ in range(NODES)]
    urls = [f"redis://127.0.0.1:{back.port}" for back in backs]
    nodes = (_node(stack, url, back, installed=installed) for url, back in zip(urls, backs, strict=True))
    return list(await asyncio.gather(*nodes))


async def _node(stack: AsyncExitStack, url: str, back: Proxy | None, *, installed: bool) -> RelayNode:
    process = NodeProcess("--redis-url", url, installed=installed)
    stack.push_async_callback(process.close)
    await process.start()
    front = await stack.enter_async_context(Proxy(*process.host_and_port))
    return RelayNode(process, front, back)
