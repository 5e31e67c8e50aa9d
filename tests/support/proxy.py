"""A TCP proxy that fails as networks do."""

import asyncio
from contextlib import suppress
from typing import Self

CHUNK_BYTES = 64 * 1024


class Proxy:
    """Passes connections on to a server until a test cuts them, refuses new ones, or swallows their data.

    `async with Proxy(host, port) as proxy`: clients connect to `proxy.port` of 127.0.0.1.
    """

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._refusing = False
        self._lines: set[_Line] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.cut()
        if self._server is not None:
            self._server.close()

    @property
    def port(self) -> int:
        assert self._server is not None
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    def cut(self) -> None:
        """Break the connections that exist, and every new one, until `mend`."""
        self._refusing = True
        for line in list(self._lines):
            line.cut()

    def mend(self) -> None:
        """Pass new connections on again."""
        self._refusing = False

    def stall(self) -> None:
        """Hold back all data of the existing connections, without loss, until `flow`."""
        for line in self._lines:
            line.flowing.clear()

    def flow(self) -> None:
        """Pass the held data on."""
        for line in self._lines:
            line.flowing.set()

    def swallow(self) -> None:
        """Drop all further data of the existing connections, without closing them; new ones work."""
        for line in self._lines:
            line.swallowing = True

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._refusing:
            writer.transport.abort()
            return
        try:
            there = await asyncio.open_connection(*self._target)
        except OSError:
            writer.transport.abort()
            return
        line = _Line(writer, there[1])
        self._lines.add(line)
        try:
            await self._open(reader, there[1])
            await asyncio.gather(line.carry(reader, there[1]), line.carry(there[0], writer))
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

    def __init__(self, *ends: asyncio.StreamWriter) -> None:
        self._ends = ends
        self.swallowing = False
        self.flowing = asyncio.Event()
        self.flowing.set()

    def cut(self) -> None:
        for end in self._ends:
            end.transport.abort()

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(CHUNK_BYTES):
                await self.flowing.wait()
                if not self.swallowing:
                    writer.write(data)
                    await writer.drain()
        self.cut()
