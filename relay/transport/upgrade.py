"""The upgrade of an HTTP request to a WebSocket (RFC 6455, section 4.2.2), by the web server that has read it."""

import asyncio
import base64
import hashlib
from collections.abc import Callable

from aiohttp import web
from aiohttp.http import WS_KEY

SERVER_ID_HEADER = "x-conclave-server-id"


async def upgrade(
    request: web.Request, protocol: asyncio.Protocol, *, server_id: str, subprotocol: str | None
) -> web.StreamResponse:
    """Answer a request, and make `protocol` that of its connection: it takes what follows, and the loss.

    aiohttp keeps nothing of the connection, which outlives the request's handler by far: headers and a parser would be
    half of its memory. The response is for the handler to return. The request must be one that
    `web.WebSocketResponse.can_prepare`.

    Raises: ConnectionError.
    """
    response = _SwitchingProtocols(request.headers["Sec-WebSocket-Key"], server_id, subprotocol)
    await response.prepare(request)
    transport = request.transport
    if transport is None:
        raise ConnectionResetError("the client left during the upgrade")
    request.protocol.set_parser(_Tail(protocol.data_received))  # type: ignore[arg-type]  # it is fed as a parser is
    transport.set_protocol(protocol)
    request.protocol.transport = None  # it would be closed with what is lost to aiohttp
    request.protocol.connection_lost(None)
    return response


class _SwitchingProtocols(web.StreamResponse):
    """The response to an upgrade. The connection outlives it."""

    def __init__(self, key: str, server_id: str, subprotocol: str | None) -> None:
        super().__init__(status=101)
        self.force_close()
        accept = base64.b64encode(hashlib.sha1(key.encode() + WS_KEY).digest())  # noqa: S324 - the RFC's choice
        self.headers["Upgrade"] = "websocket"
        self.headers["Connection"] = "upgrade"
        self.headers["Sec-WebSocket-Accept"] = accept.decode()
        self.headers[SERVER_ID_HEADER] = server_id
        if subprotocol is not None:
            self.headers["Sec-WebSocket-Protocol"] = subprotocol

    async def write_eof(self, data: bytes = b"") -> None:
        """Write nothing: no body belongs to this response."""


class _Tail:
    """Takes what the client has sent behind its request already."""

    def __init__(self, take: Callable[[bytes], None]) -> None:
        self.feed_data = take

    def feed_eof(self) -> None:
        """Take the end of the connection, which the protocol hears of on its own."""
