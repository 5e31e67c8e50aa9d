"""A WebSocket as v1 uses it: binary messages out and in, and what the upgrade told about the server."""

import asyncio
import contextlib
import os
import ssl
import time
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from types import SimpleNamespace
from typing import Self
from urllib.parse import urlsplit

from conclave.errors import LinkError
from conclave.exchange import MESSAGE_BYTES
from conclave.tls import client_context, without_certificates

with without_certificates():
    import aiohttp

SERVER_ID_HEADER = "x-conclave-server-id"

BROKEN = (OSError, aiohttp.ClientError)
"""What `Wire.send` raises when the connection does not carry it."""


class Wire:
    """One connection. `receive` has no deadline of its own; the caller sets it."""

    def __init__(self, client: aiohttp.ClientSession, socket: "aiohttp.ClientWebSocketResponse[bool]") -> None:
        self._client = client
        self._socket = socket
        headers = socket._response.headers  # noqa: SLF001 - aiohttp offers no other way to the upgrade's headers
        self.server_id = headers.get(SERVER_ID_HEADER)
        self._told_at = time.monotonic()
        self._told_ms = _date_ms(headers.get("Date"))
        self.closed_orderly = False
        """Whether the peer ended the connection with a close frame."""

    @classmethod
    async def dial(cls, url: str, deadline: float, close_deadline: float) -> Self:
        """Connect, upgrade included, within `deadline` seconds; a later close takes at most the other number.

        Raises:
            LinkError: with the reason in words.
        """
        tracing = aiohttp.TraceConfig()
        tracing.on_request_redirect.append(_refuse_redirect)
        client = aiohttp.ClientSession(
            cookie_jar=aiohttp.DummyCookieJar(), trace_configs=[tracing], timeout=aiohttp.ClientTimeout(total=None)
        )
        try:
            async with asyncio.timeout(deadline):
                socket = await client.ws_connect(
                    url,
                    ssl=client_context() if urlsplit(url).scheme == "wss" else True,
                    max_msg_size=MESSAGE_BYTES + 1,  # aiohttp refuses a message of exactly this size
                    timeout=aiohttp.ClientWSTimeout(ws_receive=None, ws_close=close_deadline),
                )
            return cls(client, socket)
        except BaseException as error:
            await client.close()
            if isinstance(error, TimeoutError):
                raise LinkError(f"timed out after {deadline:g}s connecting to `{url}`") from None
            if isinstance(error, OSError | aiohttp.ClientError | ValueError):
                raise LinkError(f"failed to connect to `{url}`: {_cause(error)}") from error
            raise

    def server_ms(self) -> int:
        """Return Unix milliseconds by the server's clock, at most a second and the way here late, never early."""
        if self._told_ms is None:
            return time.time_ns() // 1_000_000
        return self._told_ms + int((time.monotonic() - self._told_at) * 1000)

    async def send(self, data: bytes) -> None:
        await self._socket.send_bytes(data)

    async def receive(self) -> bytes | None:
        """Return the next binary message; None when the connection is over. Text messages mean nothing in v1."""
        while True:
            message = await self._socket.receive()
            if message.type is aiohttp.WSMsgType.BINARY:
                return bytes(message.data)
            if message.type is not aiohttp.WSMsgType.TEXT:
                self.closed_orderly = message.type is aiohttp.WSMsgType.CLOSE
                return None

    async def close(self) -> None:
        """Say goodbye and close; never raises for a connection that is gone already."""
        try:
            with contextlib.suppress(*BROKEN):
                await self._socket.close()
        finally:
            await self._client.close()


async def _refuse_redirect(
    _: aiohttp.ClientSession, __: SimpleNamespace, params: aiohttp.TraceRequestRedirectParams
) -> None:
    raise LinkError(f"`{params.url}` redirects elsewhere; give the server's own URL")


def _date_ms(header: str | None) -> int | None:
    try:
        return None if header is None else int(parsedate_to_datetime(header).timestamp() * 1000)
    except ValueError:
        return None


def _cause(error: BaseException) -> str:
    if isinstance(error, aiohttp.WSServerHandshakeError):
        if error.status == HTTPStatus.SERVICE_UNAVAILABLE:
            return "the relay cannot serve sessions right now; try again in a few seconds"
        return f"the server answered with status {error.status}, not as a relay"
    if isinstance(error, aiohttp.ClientConnectorError):
        return _system_reason(error.os_error)
    return str(error) or type(error).__name__


def _system_reason(error: OSError) -> str:
    """Return the system's words: aiohttp puts its own in their place, with the address that the user just typed."""
    if isinstance(error, ssl.SSLError) or not error.errno:
        return str(error)
    return os.strerror(error.errno) if error.errno > 0 else error.strerror or str(error)
