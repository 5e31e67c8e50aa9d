"""The limits on a client that has not logged in: in bytes and in time."""

import asyncio
from collections.abc import Callable
from typing import cast

ADMISSION_BYTES = 64 * 1024
"""How much a client may send before it has logged in, the HTTP request included."""
ADMISSION_SECONDS = 15.0
"""How long a connection may live without a login. A handshake has a shorter deadline of its own, and says why it ends.
This one is for clients that do not get that far: a request that never ends, a connection that stays silent."""


class PreLoginLimiter(asyncio.Protocol):
    """Stands between a transport and its protocol until the login, and costs nothing afterwards."""

    def __init__(self, inner: asyncio.Protocol) -> None:
        self._inner = inner
        self._budget = ADMISSION_BYTES
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._paused = False
        self._discarding = False
        self.on_excess: Callable[[], None] | None = None
        """Called when the client has sent too much. Without it the connection is aborted."""

    @property
    def exceeded(self) -> bool:
        return self._paused

    def lift(self) -> None:
        """End the limits: the client has logged in. May be called again."""
        if self._timer is None or self._transport is None:
            return
        self._timer.cancel()
        self._timer = None
        self._transport.set_protocol(self._inner)
        if self._paused and not self._transport.is_closing():
            self._transport.resume_reading()

    def discard_excess(self) -> None:
        """Read on, but keep nothing beyond the limit: the client was refused, and has to be able to read why."""
        if self._timer is None or self._transport is None:
            return  # the limits were lifted
        self.on_excess = None
        if self._paused and not self._transport.is_closing():
            self._discarding = True
            self._transport.resume_reading()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's does not inherit from it
        self._timer = asyncio.get_running_loop().call_later(ADMISSION_SECONDS, self._transport.abort)
        self._inner.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        if self._discarding:
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
