"""A load balancer of the simplest kind: each connection goes to the next server in turn."""

import asyncio
import itertools
from collections.abc import Sequence
from contextlib import suppress
from typing import Self

CHUNK_BYTES = 64 * 1024


class Balancer:
    """`async with Balancer(addresses) as balancer`: clients connect to `balancer.url`."""

    def __init__(self, addresses: Sequence[str]) -> None:
        """Take `host:port` of each server."""
        self._turns = itertools.cycle([address.rsplit(":", 1) for address in addresses])
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.close()

    @property
    def url(self) -> str:
        assert self._server is not None
        return f"ws://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/"

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, port = next(self._turns)
        there = await asyncio.open_connection(host, int(port))
        try:
            await asyncio.gather(_carry(reader, there[1]), _carry(there[0], writer))
        finally:
            for end in (writer, there[1]):
                end.close()


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(CHUNK_BYTES):
            writer.write(data)
            await writer.drain()
    writer.close()
