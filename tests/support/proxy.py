"""A TCP proxy that fails as networks do."""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from enum import Enum
from typing import Self

CHUNK_BYTES = 64 * 1024
_END_SECONDS = 5.0


class Way(Enum):
    """The direction of data: to the server, or to the client."""

    UP = "up"
    DOWN = "down"


class Proxy:
    """Passes connections on to a server until a test cuts, delays, closes or silences them.

    `async with Proxy(host, port) as proxy`: clients connect to `proxy.port` of 127.0.0.1. Data that was swallowed is
    never followed by later data: as in TCP, such a connection ends, or stays silent.
    """

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._refusing = False
        self._swallowing = False
        self._latency = 0.0
        self._lines: set[_Line] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.cut()
        if self._server is not None:
            self._server.close()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_END_SECONDS)

    @property
    def port(self) -> int:
        assert self._server is not None
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    def lead_to(self, host: str, port: int) -> None:
        """Pass new connections on to another server, as a changed DNS record would; the existing ones stay."""
        self._target = (host, port)

    def cut(self) -> None:
        """Break the connections that exist, and every new one, until `mend`."""
        self._refusing = True
        self.reset()

    def reset(self) -> None:
        """Break the connections that exist; new ones work."""
        for line in list(self._lines):
            line.cut()

    def mend(self) -> None:
        """Pass new connections on again, at once. Those that have lost data are broken."""
        self._refusing = self._swallowing = False
        self._latency = 0.0
        for line in list(self._lines):
            if line.deaf:
                line.cut()
        self.flow()

    def point_to(self, host: str, port: int) -> None:
        """Pass new connections on to another server."""
        self._target = (host, port)

    def stall(self) -> None:
        """Hold back all data of the existing connections, without loss, until `flow`."""
        for line in self._lines:
            line.flowing.clear()

    def flow(self) -> None:
        """Pass the held data on."""
        for line in self._lines:
            line.flowing.set()

    def swallow(self, *ways: Way) -> None:
        """Drop all further data of the existing connections, or that of one way, without closing; new ones work."""
        for line in self._lines:
            line.deaf |= set(ways or Way)

    def black_hole(self) -> None:
        """Drop all data of existing and new connections, without closing them, until `mend`."""
        self._swallowing = True
        self.swallow()

    def delay(self, seconds: float) -> None:
        """Pass everything on later by so much, until `mend`."""
        self._latency = seconds

    def half_close(self, way: Way) -> None:
        """End one way of the existing connections with a FIN; the other way goes on."""
        for line in list(self._lines):
            line.half_close(way)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        if self._refusing:
            writer.transport.abort()
            return
        try:
            there = await asyncio.open_connection(*self._target)
        except OSError:
            writer.transport.abort()
            return
        line = _Line({Way.UP: there[1], Way.DOWN: writer}, lambda: self._latency)
        if self._swallowing:
            line.deaf |= set(Way)
        self._lines.add(line)
        try:
            if not self._refusing:  # it may have begun meanwhile
                await self._open(reader, there[1])
                await asyncio.gather(line.carry(reader, Way.UP), line.carry(there[0], Way.DOWN))
        finally:
            line.cut()
            self._lines.discard(line)

    async def _open(self, reader: asyncio.StreamReader, server: asyncio.StreamWriter) -> None:
        """Pass on the first bytes of a client, with the changes that it needs."""


class V1Only(Proxy):
    """Makes a server one that knows no subprotocols, as the original is: the client's offer does not reach it."""

    async def _open(self, reader: asyncio.StreamReader, server: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        lines = [line for line in head.split(b"\r\n") if not line.lower().startswith(b"sec-websocket-protocol:")]
        server.write(b"\r\n".join(lines))


class _Line:
    """One connection through the proxy: two of them, in truth."""

    def __init__(self, ends: Mapping[Way, asyncio.StreamWriter], latency: Callable[[], float]) -> None:
        """`ends` has the writer of each way, and `latency` returns the seconds that data is late."""
        self.deaf: set[Way] = set()
        """The ways on which nothing arrives any more."""
        self.flowing = asyncio.Event()
        self.flowing.set()
        self._ends = ends
        self._latency = latency

    def cut(self) -> None:
        for end in self._ends.values():
            end.transport.abort()
        self.flowing.set()

    def half_close(self, way: Way) -> None:
        self.deaf.add(way)
        with suppress(OSError, RuntimeError):  # it has ended by itself
            self._ends[way].write_eof()

    async def carry(self, reader: asyncio.StreamReader, way: Way) -> None:
        writer = self._ends[way]
        with suppress(ConnectionError):
            while data := await reader.read(CHUNK_BYTES):
                await self.flowing.wait()
                if latency := self._latency():
                    await asyncio.sleep(latency)
                if way not in self.deaf:
                    writer.write(data)
                    await writer.drain()
        self.cut()
