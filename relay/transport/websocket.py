"""A client's WebSocket from the server's side: messages in, encoded frames out, an end within a few seconds.

aiohttp answers the HTTP request; then `ServerWebSocket` is the transport's protocol, and nothing of aiohttp runs for a
message. Messages are pulled: bytes that nobody asks for stay in the reader, and above a bound in the kernel. Frames are
written to the transport directly, because they are encoded once for all recipients.
"""

import asyncio
import contextlib
import socket as sockets
from collections.abc import Callable
from typing import NamedTuple, cast

from aiohttp import web

from conclave.errors import Code, FrameError, Refusal
from conclave.protocol.limits import FRAME_BYTES
from relay.protocol.codec import Received
from relay.protocol.framing import close_frame, pong_frame
from relay.transport import frame_reader
from relay.transport.frame_reader import Frame, FrameReader, Opcode, Violation
from relay.transport.long_messages import LongMessages
from relay.transport.pre_login import ADMISSION_BYTES, PreLoginLimiter
from relay.transport.stalls import Stalls
from relay.transport.upgrade import upgrade

_SEND_BUFFER_BYTES = 64 * 1024
_HIGH_WATER_BYTES = 256 * 1024
_READ_AHEAD_BYTES = 64 * 1024
"""The bytes of messages that are read before somebody asks for them; more only to complete one message."""
_FRAMES_PER_TURN = 64
"""The number of control frames and parts of messages that are read before other connections get a turn."""
_CLOSE_SECONDS = 3.0


class Traffic(NamedTuple):
    """Callbacks for the size of every message received and of every write, in bytes."""

    received: Callable[[int], None]
    sent: Callable[[int], None]


class Interrupted(Exception):
    """The wait for the next message was interrupted."""


class ServerWebSocket(asyncio.Protocol):
    """One client's connection after the upgrade, with text messages or with binary ones.

    Pings are answered, the last one of a turn of the event loop with one pong. What a client sends costs no other
    client more than a bounded number of frames per turn.
    """

    __slots__ = (
        *("_budget", "_closing", "_data", "_eof", "_interrupted", "_left", "_long_messages", "_opcode", "_pong"),
        *("_reader", "_reading_paused", "_sends_long_message", "_stalls", "_traffic", "_transport", "_turn_scheduled"),
        *("_writable", "has_stalled", "is_blocked", "on_change", "on_progress", "violation"),
    )

    def __init__(self, *, text: bool, traffic: Traffic, stalls: Stalls, long_messages: LongMessages) -> None:
        self._opcode = Opcode.TEXT if text else Opcode.BINARY
        self._traffic = traffic
        self._stalls = stalls
        self._long_messages = long_messages
        self._sends_long_message = False
        self._reader = FrameReader(limit=FRAME_BYTES)
        self._budget: int | None = ADMISSION_BYTES
        """The bytes that a client may still send before it has logged in; None afterwards."""
        self._transport: asyncio.Transport | None = None
        self._data: asyncio.Future[None] | None = None
        self._writable: asyncio.Future[None] | None = None
        self._pong: bytes | None = None
        self._turn_scheduled = False
        self._reading_paused = False
        self._interrupted = False
        self._eof = False
        self._closing = False
        self._left = False
        self.violation: Violation | None = None
        """The violation of the WebSocket protocol by which the client has ended the connection, if any."""
        self.is_blocked = False
        """True while the client has to read before more should be written."""
        self.has_stalled = False
        """True once a blocked client has read nothing for half a minute."""
        self.on_change: Callable[[], None] = _nothing
        """Called when there may be a next message, or when the client has ended, reads again, or has stalled."""
        self.on_progress: Callable[[], None] = _nothing
        """Called when a blocked client has read on: its own messages may not be read meanwhile."""

    # --- The upgrade ---

    async def accept(self, request: web.Request, server_id: str, *, subprotocol: str | None) -> web.StreamResponse:
        """Upgrade a request. Returns the response, for the end of its handler. Raises: ConnectionError."""
        transport = request.transport
        if transport is None:
            raise ConnectionResetError("the client left before the upgrade")
        raw = transport.get_extra_info("socket")
        if raw is not None:
            # Otherwise the kernel buffers megabytes for each slow reader before the transport's buffer grows.
            raw.setsockopt(sockets.SOL_SOCKET, sockets.SO_SNDBUF, _SEND_BUFFER_BYTES)
        transport.set_write_buffer_limits(high=_HIGH_WATER_BYTES)
        limiter = transport.get_protocol()
        if isinstance(limiter, PreLoginLimiter):
            self._budget = limiter.hand_over()
        self._transport = transport
        return await upgrade(request, self, server_id=server_id, subprotocol=subprotocol)

    def lift_limits(self) -> None:
        """End the limits on a client that has not logged in."""
        self._budget = None
        self._adjust_reading()

    # --- Messages ---

    def next_message(self) -> Received | None:
        """Return the next message; None if there is none yet, or if `has_ended`.

        Raises:
            FrameError: for a binary message on a connection with text messages.
        """
        message = None
        try:
            message = self._next_message()
        except Violation as violation:
            self.violation = violation
            self._end()
        if self._reading_paused:
            self._adjust_reading()
        return message

    def _next_message(self) -> Received | None:
        for _ in range(_FRAMES_PER_TURN):
            frame = self._reader.next()
            if self._sends_long_message or self._reader.claimed > self._long_messages.usual:
                self._claim(self._reader.claimed)
            if frame is None:
                return None
            if frame.opcode is self._opcode:
                return self._message(frame.data)
            self._handle(frame)
        self._schedule_turn()
        return None

    @property
    def has_more(self) -> bool:
        """True if `next_message` may return one now, or the client may have ended."""
        return self._reader.buffered > 0 or self._eof or self._left

    @property
    def has_ended(self) -> bool:
        """True once the client has closed, is gone, or broke the protocol, and no message is left."""
        return self._left or (self._eof and self._reader.missing)

    async def receive(self) -> Received | None:
        """Return the next message; None when the client `has_ended`.

        Raises:
            Interrupted: after `interrupt`, and for a client that sends too much before it has logged in; but not while
                there are messages.
            FrameError: as `next_message`.
        """
        while True:
            if self._interrupted:
                raise Interrupted
            message = self.next_message()
            if message is not None or self.has_ended:
                return message
            if self.excess is not None:
                raise Interrupted
            self._data = asyncio.get_running_loop().create_future()
            await self._data

    def interrupt(self) -> None:
        """Have the current or the next `receive` raise Interrupted, and `on_change` called."""
        self._interrupted = True
        self._schedule_turn()

    @property
    def excess(self) -> Refusal | None:
        """The refusal of a client that sends too much before it has logged in; None for any other."""
        if self._budget is None or self._budget >= 0:
            return None
        return Refusal(Code.TOO_LARGE, f"the handshake exceeds {ADMISSION_BYTES} bytes")

    def _claim(self, size: int) -> None:
        self._sends_long_message = size > self._long_messages.usual
        if not self._sends_long_message:
            self._long_messages.release(self)
        elif not self._long_messages.claim(self, size):
            raise Violation(Violation.TOO_BIG, "the node has no memory for another long message")

    def _message(self, data: bytes) -> Received:
        self._traffic.received(len(data))
        return frame_reader.text(data) if self._opcode is Opcode.TEXT else data

    def _handle(self, frame: Frame) -> None:
        """Handle a frame that is no message for the session.

        Ignored are pongs, parts of messages, and text on a connection with binary messages: the original ignores it in
        both directions.
        """
        match frame.opcode:
            case Opcode.BINARY:
                raise FrameError("a binary message, where only text messages are expected")
            case Opcode.PING:
                self._pong = frame.data
                self._schedule_turn()
            case Opcode.CLOSE:
                frame_reader.check_close(frame.data)
                self._end()

    def _end(self) -> None:
        self._left = True
        self._reader.discard()
        self._long_messages.release(self)

    def _schedule_turn(self) -> None:
        if not self._turn_scheduled:
            self._turn_scheduled = True
            asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        self._turn_scheduled = False
        pong, self._pong = self._pong, None
        if pong is not None and not self.is_blocked and not self._closing:
            self.write(pong_frame(pong))
        self._changed()

    def _changed(self) -> None:
        if self._data is not None and not self._data.done():
            self._data.set_result(None)
        self.on_change()

    # --- The transport's callbacks ---

    def data_received(self, data: bytes) -> None:
        if self._budget is not None:
            self._budget -= len(data)
        if self._left or (self._closing and self.excess is not None):
            return
        self._reader.feed(data)
        self._changed()
        if self._budget is not None or self._reader.buffered >= _READ_AHEAD_BYTES:
            self._adjust_reading()

    def _adjust_reading(self) -> None:
        """Pause reading while enough is there that was not taken; else resume it."""
        enough = self._reader.buffered >= _READ_AHEAD_BYTES and not self._reader.missing
        paused = (enough or self.excess is not None) and not (self._left or self._closing)
        if paused != self._reading_paused and self._transport is not None and not self._transport.is_closing():
            self._reading_paused = paused
            if paused:
                self._transport.pause_reading()
            else:
                self._transport.resume_reading()

    def eof_received(self) -> bool:
        self._eof = True
        self._changed()
        return True  # the close is still to be written

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the reason is the same to a session
        self._eof = True
        self._long_messages.release(self)
        self.resume_writing()

    def pause_writing(self) -> None:
        self.is_blocked = True
        self._stalls.watch(self)

    def resume_writing(self) -> None:
        self.is_blocked = False
        self._stalls.forget(self)
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)
        self.on_progress()
        self._changed()

    # --- Frames ---

    @property
    def transport(self) -> asyncio.Transport:
        return cast("asyncio.Transport", self._transport)

    @property
    def unread_bytes(self) -> int:
        """The bytes that were written and that the kernel has not taken."""
        return self.transport.get_write_buffer_size()

    def write(self, frames: bytes) -> None:
        """Write frames, unless the client is gone."""
        if not self.transport.is_closing():
            self.transport.write(frames)
            self._traffic.sent(len(frames))

    async def drained(self) -> None:
        """Wait until the client has read most of what was written, as long as it reads at all.

        Raises:
            TimeoutError: if the client does not read.
            ConnectionError: if it is gone.
        """
        while self.is_blocked:
            if self.has_stalled:
                raise TimeoutError
            if self._writable is None or self._writable.done():
                self._writable = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._writable)  # one for all waiters
        if self.transport.is_closing():
            raise ConnectionResetError("the client is gone")

    def progressed(self) -> None:
        self.on_progress()

    def stalled(self) -> None:
        self.has_stalled = True
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)
        self._changed()

    # --- The end ---

    def closing_frame(self, frames: bytes) -> bytes:
        """Return the last frames for a client: `frames`, but for a violation of the protocol a close with its code."""
        return frames if self.violation is None else close_frame(self.violation.code, "")

    async def close(self) -> None:
        """Wait until the client has read the close and closed too, for three seconds at most; then disconnect it."""
        self._closing = True
        self._adjust_reading()
        try:
            async with asyncio.timeout(_CLOSE_SECONDS):
                while not (self._left or self._eof):
                    await self._discard()
        except TimeoutError:
            self.transport.abort()
        else:
            self.transport.close()  # after the last bytes, which a client that does not read never takes:
            asyncio.get_running_loop().call_later(_CLOSE_SECONDS, self.transport.abort)

    async def _discard(self) -> None:
        """Drop what the client sends, up to its close."""
        with contextlib.suppress(FrameError):
            while self.next_message() is not None:
                pass
            if not self._left:
                self._data = asyncio.get_running_loop().create_future()
                await self._data


def _nothing() -> None:
    """Do nothing: the callback of a socket without a session."""
