"""A client's WebSocket from the server's side: messages in, encoded frames out, an end within a few seconds."""

import asyncio
import socket as sockets
from collections.abc import Callable
from typing import NamedTuple, Self

from aiohttp import WSMsgType, web
from aiohttp.abc import AbstractStreamWriter

from conclave.errors import Code, FrameError, Refusal
from conclave.protocol.limits import FRAME_BYTES
from relay.transport.pre_login import ADMISSION_BYTES, PreLoginLimiter

_SEND_BUFFER_BYTES = 64 * 1024
_HIGH_WATER_BYTES = 256 * 1024
_CHECK_SECONDS, _CHECKS = 3.0, 10
"""A client that has read nothing at so many checks in a row, one each so many seconds, does not read."""
_CLOSE_SECONDS = 3.0

SERVER_ID_HEADER = "x-conclave-server-id"


class Traffic(NamedTuple):
    """Callbacks for the size of every message received and of every write, in bytes."""

    received: Callable[[int], None]
    sent: Callable[[int], None]


class Interrupted(Exception):
    """The wait for the next message was interrupted."""


class ServerWebSocket:
    """Reads whole messages and writes encoded frames.

    aiohttp keeps the reading side and the control frames. Frames are written to the transport directly, because they
    are encoded once for all recipients; without compression the two ways of writing can be mixed.
    """

    def __init__(
        self, ws: web.WebSocketResponse, transport: asyncio.Transport, *, text: bool, traffic: Traffic
    ) -> None:
        self._ws = ws
        self._text = text
        self._traffic = traffic
        self.transport = transport
        self.on_progress: Callable[[], None] = _nothing
        """Called when a client that `drain` waits for has read on: its own messages may not be read meanwhile."""
        protocol = transport.get_protocol()
        self._limiter = protocol if isinstance(protocol, PreLoginLimiter) else None
        if self._limiter is not None:
            self._limiter.on_excess = self._on_excess
        self._stream: AbstractStreamWriter | None = None
        self._scope: asyncio.Timeout | None = None
        self._draining: asyncio.Future[None] | None = None
        self._interrupted = False
        self._received = 0

    @classmethod
    async def accept(
        cls, request: web.Request, server_id: str, *, subprotocol: str | None, text: bool, traffic: Traffic
    ) -> Self:
        """Upgrade a request to a connection with text messages, or with binary ones.

        Raises: web.HTTPException, ConnectionResetError.
        """
        transport = request.transport
        if transport is None:
            raise ConnectionResetError("the client left before the upgrade")
        raw = transport.get_extra_info("socket")
        if raw is not None:
            # Otherwise the kernel buffers megabytes for each slow reader before the transport's buffer grows.
            raw.setsockopt(sockets.SOL_SOCKET, sockets.SO_SNDBUF, _SEND_BUFFER_BYTES)
        transport.set_write_buffer_limits(high=_HIGH_WATER_BYTES)
        protocols = () if subprotocol is None else (subprotocol,)
        ws = web.WebSocketResponse(max_msg_size=FRAME_BYTES + 1, compress=False, autoclose=False, protocols=protocols)
        ws.headers[SERVER_ID_HEADER] = server_id
        socket = cls(ws, transport, text=text, traffic=traffic)
        socket._stream = await ws.prepare(request)
        return socket

    @property
    def response(self) -> web.WebSocketResponse:
        return self._ws

    def interrupt(self) -> None:
        """Have the current or the next `receive` raise Interrupted."""
        self._interrupted = True
        if self._scope is not None:
            self._scope.reschedule(0)

    def lift_limits(self) -> None:
        """End the limits on clients that have not logged in."""
        if self._limiter is not None:
            self._limiter.lift()

    async def receive(self) -> bytes | str | None:
        """Return the next message; None when the client has closed, is gone, or broke the WebSocket protocol.

        Raises:
            Interrupted: after `interrupt`. No message is lost.
            FrameError: for a binary message on a connection with text messages.
        """
        while True:
            if self._interrupted:
                raise Interrupted
            try:
                async with asyncio.timeout(None) as self._scope:
                    message = await self._ws.receive()
            except TimeoutError:
                raise Interrupted from None
            finally:
                self._scope = None
            self._received += 1
            match message.type:
                case WSMsgType.TEXT if self._text:
                    text: str = message.data
                    self._traffic.received(len(text) if text.isascii() else len(text.encode()))
                    return text
                case WSMsgType.BINARY if self._text:
                    raise FrameError("a binary message, where only text messages are expected")
                case WSMsgType.BINARY:
                    data: bytes = message.data
                    self._traffic.received(len(data))
                    return data
                case WSMsgType.TEXT:
                    continue  # ignored in both directions, as the original does
                case _:
                    return None

    def write(self, frames: bytes) -> None:
        """Write frames, unless the client is gone."""
        if not self.transport.is_closing():
            self.transport.write(frames)
            self._traffic.sent(len(frames))

    async def drain(self) -> None:
        """Wait until the client has read most of what was written, as long as it reads at all.

        Returns early after `interrupt`.

        Raises:
            TimeoutError: if the client does not read.
            ConnectionError: if it is gone.
        """
        checks = 0
        while not self._interrupted:
            unread = self.transport.get_write_buffer_size()
            try:
                async with asyncio.timeout(_CHECK_SECONDS) as self._scope:
                    await self._drained()
                break
            except TimeoutError:
                checks = 0 if self._has_read(unread) else checks + 1
                if checks >= _CHECKS and not self._interrupted:
                    raise
            finally:
                self._scope = None

    async def drained(self) -> None:
        """Do the same for another task, at the same time, and without an interrupt."""
        checks = 0
        while True:
            unread = self.transport.get_write_buffer_size()
            try:
                async with asyncio.timeout(_CHECK_SECONDS):
                    return await self._drained()
            except TimeoutError:
                checks = 0 if self._has_read(unread) else checks + 1
                if checks >= _CHECKS:
                    raise

    def _has_read(self, unread: int) -> bool:
        """Return whether less is unread than before. More proves nothing: a replay writes meanwhile."""
        if self.transport.get_write_buffer_size() >= unread:
            return False
        self.on_progress()
        return True

    async def _drained(self) -> None:
        if self._stream is None or self.transport.get_write_buffer_size() <= _HIGH_WATER_BYTES:
            return
        if self._draining is None or self._draining.done():  # one for all waiters: cancelling it would end it for all
            self._draining = asyncio.ensure_future(self._stream.drain())
            self._draining.add_done_callback(_retrieve_exception)
        await asyncio.shield(self._draining)
        self.on_progress()

    async def close(self) -> None:
        """Wait until the client has read the close and closed too, for three seconds at most; then disconnect it."""
        if self._limiter is not None:
            self._limiter.discard_excess()
        try:
            async with asyncio.timeout(_CLOSE_SECONDS):
                while not self._ws.closed and (await self._ws.receive()).type in (WSMsgType.BINARY, WSMsgType.TEXT):
                    pass
        except (TimeoutError, ConnectionError, RuntimeError):
            self.transport.abort()
        else:
            self.transport.close()  # after the last bytes, which a client that does not read never takes:
            asyncio.get_running_loop().call_later(_CLOSE_SECONDS, self.transport.abort)

    def _on_excess(self) -> None:
        """Refuse a handshake that is too long, unless a complete message in it is decided on first."""
        loop = asyncio.get_running_loop()
        loop.call_soon(loop.call_soon, self._refuse_excess, self._received)

    def _refuse_excess(self, received_before: int) -> None:
        if self._received == received_before:
            self.interrupt()

    @property
    def excess(self) -> Refusal | None:
        """The refusal of a handshake that was interrupted for its size; None for any other."""
        if self._limiter is None or not self._limiter.exceeded:
            return None
        return Refusal(Code.TOO_LARGE, f"the handshake exceeds {ADMISSION_BYTES} bytes")


def _nothing() -> None:
    """Do nothing: the callback of a socket without a session."""


def _retrieve_exception(draining: "asyncio.Future[None]") -> None:
    """Retrieve an exception that no waiter may be left for; asyncio logs it otherwise."""
    if not draining.cancelled():
        draining.exception()
