"""A TCP balancer: one address for several nodes."""

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any, Self

import aiohttp

Address = tuple[str, int]

CHUNK_BYTES = 64 * 1024
CONNECT_SECONDS = 2.0
CHECK_SECONDS = 2.0
"""The deadline of a readiness check."""
LINGER_SECONDS = 5.0
"""The time for which one side may keep sending after the other has ended."""
PERIOD_SECONDS = 0.25
"""Between two readiness checks of a node."""


class Backend:
    """A node as the balancer sees it."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self.is_ready = False
        self.connections = 0


class Balancer:
    """Forwards each new connection, as opaque bytes, to the ready node that has the fewest connections.

    A node is ready while `GET /ready` answers 200. A node that is not ready keeps its connections and gets no new ones.
    A node that refuses a connection is skipped. While no node is ready, any of them may get the connection, because its
    answer says why. Backpressure passes through: reading from one side waits for the other side.

    `async with Balancer(nodes) as balancer`, then `listen`. Leaving the block cuts all connections.
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
        self.stop_listening()
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        if self._http is not None:
            await self._http.close()

    async def listen(self, host: str, port: int) -> None:
        """Accept connections. Raises: OSError."""
        self._server = await asyncio.start_server(self._accept, host, port)
        self.address = self._server.sockets[0].getsockname()[:2]

    def stop_listening(self) -> None:
        """Refuse new connections; the open ones stay."""
        if self._server is not None:
            self._server.close()

    @property
    def ready(self) -> list[Address]:
        """The nodes that were ready at their last check."""
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
                    node = await asyncio.open_connection(*backend.address)
                await _exchange((reader, writer), node)
                return
            except (OSError, TimeoutError):
                backend.is_ready = False
            finally:
                backend.connections -= 1
        writer.transport.abort()

    def _candidates(self) -> list[Backend]:
        """Return the nodes to try, best first; equal ones take turns."""
        self._turns += 1
        turn = self._turns % len(self.backends)
        rotated = self.backends[turn:] + self.backends[:turn]
        return sorted(rotated, key=lambda backend: (not backend.is_ready, backend.connections))


_Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def _exchange(client: _Stream, node: _Stream) -> None:
    """Copy bytes both ways until both sides have ended, or one of them fails."""
    try:
        async with asyncio.TaskGroup() as tasks:
            copies = [tasks.create_task(_copy(client[0], node[1])), tasks.create_task(_copy(node[0], client[1]))]
            await asyncio.wait(copies, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait(copies, timeout=LINGER_SECONDS)
            for copy in copies:
                copy.cancel()
    except* OSError:
        pass  # the other side sees its connection cut
    finally:
        for _, writer in (client, node):
            writer.transport.abort()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while chunk := await reader.read(CHUNK_BYTES):
        writer.write(chunk)
        await writer.drain()
    if not writer.is_closing():
        writer.write_eof()
