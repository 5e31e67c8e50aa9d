"""What a peer can make the relay spend before it has logged in: so many bytes, so much time."""

import asyncio
from collections.abc import Callable
from typing import cast

ADMISSION_BYTES = 64 * 1024
"""What a peer may send, the HTTP request included, before it has logged in."""
ADMISSION_SECONDS = 15.0
"""How long a connection may live without a login. The handshake's own, shorter deadline says why; this one is for
peers that do not even get there: a request that never ends, a connection that stays silent."""


class PreLoginLimiter(asyncio.Protocol):
    """Stands between a transport and its protocol until the peer is admitted; then it costs nothing any more."""

    def __init__(self, inner: asyncio.Protocol) -> None:
        self._inner = inner
        self._budget = ADMISSION_BYTES
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._paused = False
        self._dismissed = False
        self.on_excess: Callable[[], None] | None = None
        """Called when the peer has sent too much, instead of dropping it."""

    @property
    def exceeded(self) -> bool:
        return self._paused

    def admit(self) -> None:
        """Let everything through from now on, without a detour. May be called again."""
        if self._timer is None or self._transport is None:
            return
        self._timer.cancel()
        self._timer = None
        self._transport.set_protocol(self._inner)
        if self._paused and not self._transport.is_closing():
            self._transport.resume_reading()

    def dismiss(self) -> None:
        """The peer was refused: let it hear why, but keep nothing of what it sends beyond its budget."""
        if self._timer is None or self._transport is None:
            return  # it had been admitted
        self.on_excess = None
        if self._paused and not self._transport.is_closing():
            self._dismissed = True
            self._transport.resume_reading()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one only in deed
        self._timer = asyncio.get_running_loop().call_later(ADMISSION_SECONDS, self._transport.abort)
        self._inner.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        if self._dismissed:
            return
        self._budget -= len(data)
        if self._budget < 0 and not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()
            if self.on_excess is None:
                self._transport.abort()
                return
            self.on_excess()
        self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        return self._inner.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._inner.connection_lost(exc)

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()
