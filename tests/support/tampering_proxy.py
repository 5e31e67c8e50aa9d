"""A server of protocol v2 with a defect: a proxy before a real one that changes what passes through."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

Json = dict[str, Any]
V2 = Subprotocol("conclave.v2")


class Tampering:
    """Passes everything on. One for each connection; a defect overrides what it changes."""

    def __init__(self) -> None:
        self.path = ""
        self.requests: dict[object, Json] = {}
        """Requests by their number."""

    def up(self, frame: Json) -> list[Json]:
        """Return the messages to the server instead of a client's."""
        return [frame]

    def down(self, frame: Json) -> list[Json | bytes]:
        """Return the messages to the client instead of a server's."""
        return [frame]

    def close(self, code: int) -> int:
        """Return the code that the client sees."""
        return code

    # --- What the proxy calls ---

    def from_client(self, message: str | bytes) -> list[str | bytes]:
        try:
            frame = json.loads(message)
        except ValueError:
            return [message]
        if not isinstance(frame, dict) or isinstance(message, bytes):
            return [message]
        if isinstance(frame.get("id"), int):
            self.requests[frame["id"]] = frame
        return [json.dumps(each) for each in self.up(frame)]

    def from_server(self, message: str | bytes) -> list[str | bytes]:
        frame = json.loads(message)
        if frame.get("ev") == "ready":
            self.path = frame["path"]
        return [json.dumps(each) if isinstance(each, dict) else each for each in self.down(frame)]


@asynccontextmanager
async def tampering_proxy(url: str, make: Callable[[], Tampering], *, subprotocol: bool = True) -> AsyncIterator[str]:
    """Run the proxy; yields its URL."""

    async def handle(client: ServerConnection) -> None:
        tampering = make()
        async with connect(url, subprotocols=[V2], max_size=None, compression=None, proxy=None) as there:
            up = asyncio.create_task(_carry(client, there, tampering.from_client))
            await _carry(there, client, tampering.from_server)
            up.cancel()
            code = there.close_code or 1011
            await client.close(tampering.close(1011 if code == 1006 else code), there.close_reason or "")

    known = [V2] if subprotocol else None
    async with serve(handle, "127.0.0.1", 0, subprotocols=known, max_size=None, compression=None) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        yield f"ws://127.0.0.1:{port}/"


async def _carry(
    source: ClientConnection | ServerConnection,
    target: ClientConnection | ServerConnection,
    change: Callable[[str | bytes], list[str | bytes]],
) -> None:
    """Pass messages on until one side has closed; then the other one is closed, too."""
    with contextlib.suppress(ConnectionClosed):
        async for message in source:
            for each in change(message):
                await target.send(each)
    if isinstance(source, ServerConnection):
        await target.close(source.close_code if source.close_code not in (None, 1005, 1006) else 1000)
