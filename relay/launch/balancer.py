"""A TCP balancer: one address for several nodes."""

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any, Self

import aiohttp

Address = tuple[str, int]

CHUNK_BYTES = 64 * 1024
CONNECT_SECONDS = 2.0
CHECK_SECONDS = 2.0
"""How long a node may take to answer whether it is ready."""
LINGER_SECONDS = 5.0
"""How long a side may go on talking after the other has ended."""
PERIOD_SECONDS = 0.25
"""Between two such questions."""


class Backend:
    """A node as the balancer sees it."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self.is_ready = False
        self.connections = 0


class Balancer:
    """Carries each new connection to the ready node that has the fewest, as bytes that it does not look into.

    A node is ready while `GET /ready` answers 200. One that is not keeps the connections it has and gets no new ones;
    one that turns a connection away is passed over. While no node is ready any may be asked, because it says why
    it is not. Reading from one side waits for the other side to take it.

    `async with Balancer(nodes) as balancer`, then `listen`. Leaving the block cuts what is connected.
    """

    def __init__(self, nodes: Sequence[Address], *, period: float = PERIOD_SECONDS) -> None:
        self.backends = [Backend(address) for address in nodes]
        self.address: Address = ("", 0)
        self._period = period
        self._running: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._http: aiohttp.ClientSession | None = None
        self._turns = 0

    async def __aenter__(self) -> Self:
        self._http = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=CHECK_SECONDS))
        for backend in self.backends:
            self._start(self._watch(self._http, backend))
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close_door()
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        if self._http is not None:
            await self._http.close()

    async def listen(self, host: str, port: int) -> None:
        """Accept connections. Raises: OSError."""
        self._server = await asyncio.start_server(self._accept, host, port)
        self.address = self._server.sockets[0].getsockname()[:2]

    def close_door(self) -> None:
        """Accept nobody any more; what is connected stays so."""
        if self._server is not None:
            self._server.close()

    @property
    def ready(self) -> list[Address]:
        """The nodes that were ready when they were last asked."""
        return [backend.address for backend in self.backends if backend.is_ready]

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _watch(self, http: aiohttp.ClientSession, backend: Backend) -> None:
        host, port = backend.address
        while True:
            try:
                async with http.get(f"http://{host}:{port}/ready") as answer:
                    backend.is_ready = answer.status == 200  # noqa: PLR2004 - what ready means
            except (aiohttp.ClientError, TimeoutError):
                backend.is_ready = False
            await asyncio.sleep(self._period)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._start(self._serve(reader, writer))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for backend in self._candidates():
            backend.connections += 1
            try:
                async with asyncio.timeout(CONNECT_SECONDS):
                    there = await asyncio.open_connection(*backend.address)
                await _exchange((reader, writer), there)
                return
            except (OSError, TimeoutError):
                backend.is_ready = False
            finally:
                backend.connections -= 1
        writer.transport.abort()

    def _candidates(self) -> list[Backend]:
        """The nodes to try, best first; of equals another one each time."""
        self._turns += 1
        turn = self._turns % len(self.backends)
        in_turn = self.backends[turn:] + self.backends[:turn]
        return sorted(in_turn, key=lambda backend: (not backend.is_ready, backend.connections))


_Line = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def _exchange(here: _Line, there: _Line) -> None:
    """Carry bytes both ways until both sides have said all, or one of them breaks."""
    try:
        async with asyncio.TaskGroup() as tasks:
            ways = [tasks.create_task(_carry(here[0], there[1])), tasks.create_task(_carry(there[0], here[1]))]
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait(ways, timeout=LINGER_SECONDS)
            for way in ways:
                way.cancel()
    except* OSError:
        pass  # whoever is still there is told by the cut
    finally:
        for _, writer in (here, there):
            writer.transport.abort()


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while chunk := await reader.read(CHUNK_BYTES):
        writer.write(chunk)
        await writer.drain()
    if not writer.is_closing():
        writer.write_eof()
