"""A connection to Redis that is read without a coroutine: commands go out as bytes, each reply comes in as a call.

redis-py opens the connection (TLS, users, databases, Sentinel). Then its transport is given a protocol of ours, which
reads with hiredis. It takes as much from the socket as is handed over, and a limited number of replies in one turn of
the event loop, so neither a burst nor a long reply keeps other callbacks waiting.
"""

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, cast

import hiredis
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError as LostConnection
from redis.exceptions import InvalidResponse, ResponseError
from typing_extensions import override

from relay.redis.failures import CONNECTION_ERRORS, ErrorReply, code_of

Command = tuple[bytes | str | int | float, ...]
Reply = Any
"""A reply of Redis: bytes, int, None, or a list of these. An error reply is an `ErrorReply`, and is not raised."""

OnReply = Callable[[Reply], None]
OnLost = Callable[[Exception], None]

_REPLIES_PER_TURN = 64
_READ_BYTES = 64 * 1024
_INCOMPLETE = object()


def pack(command: Command) -> bytes:
    """Return a command as it is sent."""
    return cast("bytes", hiredis.pack_command(command))  # type: ignore[arg-type]  # it takes any number of parts


def pairs(reply: list[Any]) -> list[tuple[Any, Any]]:
    """Return the fields and the values of a hash, which Redis sends as one list."""
    return list(zip(reply[::2], reply[1::2], strict=True))


def _ignore(*_: object) -> None:
    """Do nothing: the owner of a connection may wait for its `lost` instead, and need not bound what it writes."""


class Connection(ABC):
    """An open connection of its owner's own.

    `on_reply` is called with each reply, in order; it must not block. `on_lost` is called once if the connection ends
    before `close`, with the error: that of the connection, or one that `on_reply` has raised. Nothing is called after
    either.
    """

    def __init__(self, opened: AbstractConnection, on_reply: OnReply, on_lost: OnLost) -> None:
        self._opened = opened
        self._on_reply = on_reply
        self._on_lost = on_lost
        self._is_open = True
        self.lost: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()
        """The error that `on_lost` is called with, once it is."""
        self.can_write = True
        """False while the peer does not read what was written. `on_writable` is called when it does again."""
        self.heard_at = time.monotonic()
        """The time at which anything was received last, a part of a reply included (`time.monotonic`)."""

    @abstractmethod
    def write(self, packed: Sequence[bytes]) -> None:
        """Send commands, in order and without waiting."""

    async def close(self) -> None:
        """End the connection at once, also with a peer that does not read. May be called twice."""
        self._is_open = False
        await self._opened.disconnect(nowait=True)

    def abort(self, error: Exception) -> None:
        """Give the connection up with an error, which is passed to `on_lost`. It remains to be closed."""
        if self._is_open:
            self._is_open = False
            if not self.lost.done():
                self.lost.set_result(error)
            self._on_lost(error)


class SocketConnection(Connection, asyncio.BufferedProtocol):
    """A connection over a transport of asyncio or uvloop."""

    def __init__(
        self,
        opened: AbstractConnection,
        transport: asyncio.Transport,
        on_reply: OnReply,
        on_lost: OnLost,
        on_writable: Callable[[], None],
    ) -> None:
        super().__init__(opened, on_reply, on_lost)
        self._transport = transport
        self._on_writable = on_writable
        self._buffer = memoryview(bytearray(_READ_BYTES))
        self._reader = hiredis.Reader(InvalidResponse, ErrorReply, notEnoughData=_INCOMPLETE)
        self._is_paused = False
        self._loop = asyncio.get_running_loop()
        transport.set_protocol(self)

    @override
    def write(self, packed: Sequence[bytes]) -> None:
        try:
            self._transport.writelines(packed)
        except CONNECTION_ERRORS as error:
            self.abort(error)

    @override
    async def close(self) -> None:
        self._transport.abort()
        await super().close()

    # --- What the transport calls ---

    @override
    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    @override
    def buffer_updated(self, nbytes: int) -> None:
        self.heard_at = time.monotonic()
        self._reader.feed(self._buffer, 0, nbytes)  # type: ignore[arg-type]  # it takes any buffer
        self._hand_over()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self.abort(exc or LostConnection("Connection closed by server."))

    @override
    def pause_writing(self) -> None:
        self.can_write = False

    @override
    def resume_writing(self) -> None:
        self.can_write = True
        self._on_writable()

    def _hand_over(self) -> None:
        """Pass on the replies that are complete; nothing more is read before all of them are."""
        next_reply, on_reply = self._reader.gets, self._on_reply
        try:
            for _ in range(_REPLIES_PER_TURN):
                reply = next_reply()
                if reply is _INCOMPLETE or not self._is_open:
                    self._read_on()
                    return
                on_reply(reply)
        except Exception as error:  # noqa: BLE001 - the owner decides what it means
            self.abort(error)
            return
        if not self._is_paused:
            self._is_paused = True
            self._transport.pause_reading()
        self._loop.call_soon(self._hand_over)

    def _read_on(self) -> None:
        if self._is_paused:
            self._is_paused = False
            self._transport.resume_reading()


class InProcessConnection(Connection):
    """A connection to the server inside this process, which has no transport."""

    def __init__(self, opened: AbstractConnection, on_reply: OnReply, on_lost: OnLost) -> None:
        super().__init__(opened, on_reply, on_lost)
        self._reading = asyncio.create_task(self._read())

    @override
    def write(self, packed: Sequence[bytes]) -> None:
        _writer(self._opened).writelines(packed)

    @override
    async def close(self) -> None:
        self._reading.cancel()
        await asyncio.wait([self._reading])
        await super().close()

    async def _read(self) -> None:
        try:
            while True:
                reply = await self._next_reply()
                self.heard_at = time.monotonic()
                self._on_reply(reply)
        except Exception as error:  # noqa: BLE001 - the owner decides what it means
            self.abort(error)

    async def _next_reply(self) -> Reply:
        try:
            return await self._opened.read_response()
        except ResponseError as error:
            code, text = code_of(error), str(error)
            return ErrorReply(text if code is None or text.startswith(code) else f"{code} {text}")


def attach(
    opened: AbstractConnection, on_reply: OnReply, on_lost: OnLost = _ignore, on_writable: Callable[[], None] = _ignore
) -> Connection:
    """Take over a connection that redis-py has opened, and on which nothing is left to read."""
    transport = getattr(_writer(opened), "transport", None)
    if transport is None:
        return InProcessConnection(opened, on_reply, on_lost)
    return SocketConnection(opened, transport, on_reply, on_lost, on_writable)


def _writer(opened: AbstractConnection) -> asyncio.StreamWriter:
    """Return the stream of a connection, which redis-py keeps to itself."""
    return cast("asyncio.StreamWriter", opened._writer)  # noqa: SLF001
