"""One client's WebSocket from the server's side: messages in, ready frames out, an end that always comes."""

import asyncio
import socket as sockets
from collections.abc import Callable
from typing import NamedTuple, Self

from aiohttp import WSMsgType, web
from aiohttp.abc import AbstractStreamWriter

from conclave.errors import Code, FrameError, Refusal
from relay.protocol.framing import FRAME_BYTES
from relay.transport.pre_login import ADMISSION_BYTES, PreLoginLimiter

_SEND_BUFFER_BYTES = 64 * 1024
_HIGH_WATER_BYTES = 256 * 1024
_LOOK_SECONDS, _LOOKS = 3.0, 10
"""A peer that has read nothing whenever it was looked at, so often in a row, does not read."""
_GOODBYE_SECONDS = 3.0

SERVER_ID_HEADER = "x-conclave-server-id"


class Traffic(NamedTuple):
    """Told of every message in and of every write out, in bytes."""

    received: Callable[[int], None]
    sent: Callable[[int], None]


class Interrupted(Exception):
    """The wait for the next message was interrupted."""


class ServerWebSocket:
    """Reads whole messages and writes ready frames.

    aiohttp keeps the reading side, control frames included. Frames are written straight to the transport: they are
    encoded once for everybody, and without compression the two ways of writing mix.
    """

    def __init__(
        self, ws: web.WebSocketResponse, transport: asyncio.Transport, *, text: bool, traffic: Traffic
    ) -> None:
        self._ws = ws
        self._text = text
        self._traffic = traffic
        self.transport = transport
        self.on_progress: Callable[[], None] = _nothing
        """Called when a peer that was waited for has read on: while it is, its own messages may not be read."""
        doorman = transport.get_protocol()
        self._doorman = doorman if isinstance(doorman, PreLoginLimiter) else None
        if self._doorman is not None:
            self._doorman.on_excess = self._on_excess
        self._stream: AbstractStreamWriter | None = None
        self._scope: asyncio.Timeout | None = None
        self._draining: asyncio.Future[None] | None = None
        self._interrupted = False
        self._received = 0

    @classmethod
    async def accept(
        cls, request: web.Request, server_id: str, *, subprotocol: str | None, text: bool, traffic: Traffic
    ) -> Self:
        """Upgrade a request, to a connection with text messages or with binary ones.

        Raises: web.HTTPException, ConnectionResetError.
        """
        transport = request.transport
        if transport is None:
            raise ConnectionResetError("the client left before the upgrade")
        raw = transport.get_extra_info("socket")
        if raw is not None:
            # Without this the kernel hides megabytes per slow reader before the transport's buffer grows.
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
        """Have the present or the next `receive` raise Interrupted."""
        self._interrupted = True
        if self._scope is not None:
            self._scope.reschedule(0)

    def admit(self) -> None:
        """The peer has logged in: lift the bounds for those who have not."""
        if self._doorman is not None:
            self._doorman.admit()

    async def receive(self) -> bytes | str | None:
        """Return the next message; None when the peer has closed, is gone, or broke the WebSocket protocol.

        Raises:
            Interrupted: after `interrupt`. No message is lost by it.
            FrameError: for a binary message where text is spoken.
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
        """Write frames, if the peer is still there."""
        if not self.transport.is_closing():
            self.transport.write(frames)
            self._traffic.sent(len(frames))

    async def drain(self) -> None:
        """Wait until the peer has read most of what was written, for as long as it reads anything at all.

        Returns early after `interrupt`.

        Raises:
            TimeoutError: if the peer does not read.
            ConnectionError: if it is gone.
        """
        looks = 0
        while not self._interrupted:
            unread = self.transport.get_write_buffer_size()
            try:
                async with asyncio.timeout(_LOOK_SECONDS) as self._scope:
                    await self._drained()
                break
            except TimeoutError:
                looks = 0 if self._has_read(unread) else looks + 1
                if looks >= _LOOKS and not self._interrupted:
                    raise
            finally:
                self._scope = None

    async def drained(self) -> None:
        """As `drain`, beside it, without being interrupted."""
        looks = 0
        while True:
            unread = self.transport.get_write_buffer_size()
            try:
                async with asyncio.timeout(_LOOK_SECONDS):
                    return await self._drained()
            except TimeoutError:
                looks = 0 if self._has_read(unread) else looks + 1
                if looks >= _LOOKS:
                    raise

    def _has_read(self, unread: int) -> bool:
        """Whether less is unread now. More says nothing: a replay goes on beside whoever waits."""
        if self.transport.get_write_buffer_size() >= unread:
            return False
        self.on_progress()
        return True

    async def _drained(self) -> None:
        if self._stream is None or self.transport.get_write_buffer_size() <= _HIGH_WATER_BYTES:
            return
        if self._draining is None or self._draining.done():  # one for all who wait: a cancelled one ends it for all
            self._draining = asyncio.ensure_future(self._stream.drain())
            self._draining.add_done_callback(_noticed)
        await asyncio.shield(self._draining)
        self.on_progress()

    async def hang_up(self) -> None:
        """Wait, not for long, until the peer has read its last words and closed too; then drop the connection."""
        if self._doorman is not None:
            self._doorman.dismiss()
        try:
            async with asyncio.timeout(_GOODBYE_SECONDS):
                while not self._ws.closed and (await self._ws.receive()).type in (WSMsgType.BINARY, WSMsgType.TEXT):
                    pass
        except (TimeoutError, ConnectionError, RuntimeError):
            self.transport.abort()
        else:
            self.transport.close()  # once the last bytes are out, or never for a peer that does not read them:
            asyncio.get_running_loop().call_later(_GOODBYE_SECONDS, self.transport.abort)

    def _on_excess(self) -> None:
        """Refuse a handshake that is too long, unless a message in it is complete and decides first."""
        loop = asyncio.get_running_loop()
        loop.call_soon(loop.call_soon, self._refuse_excess, self._received)

    def _refuse_excess(self, received_before: int) -> None:
        if self._received == received_before:
            self.interrupt()

    @property
    def excess(self) -> Refusal | None:
        """Why the handshake was interrupted, if it was for its size."""
        if self._doorman is None or not self._doorman.exceeded:
            return None
        return Refusal(Code.TOO_LARGE, f"the handshake exceeds {ADMISSION_BYTES} bytes")


def _nothing() -> None:
    """Nobody wants to know."""


def _noticed(draining: "asyncio.Future[None]") -> None:
    """Take note of an error that nobody may be there to see."""
    if not draining.cancelled():
        draining.exception()
