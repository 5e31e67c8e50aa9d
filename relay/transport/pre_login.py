"""The limits on a client that has not logged in: in bytes and in time."""

import asyncio
from typing import cast

ADMISSION_BYTES = 64 * 1024
"""How much a client may send before it has logged in, the HTTP request included."""
ADMISSION_SECONDS = 15.0
"""How long a connection may live without a login. A handshake has a shorter deadline of its own, and says why it ends.
This one is for clients that do not get that far: a request that never ends, a connection that stays silent."""


class PreLoginLimiter(asyncio.Protocol):
    """Stands between a transport and the HTTP server until the upgrade, and aborts what exceeds the limits."""

    def __init__(self, inner: asyncio.Protocol) -> None:
        self._inner = inner
        self._budget = ADMISSION_BYTES
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None

    def hand_over(self) -> int:
        """End the limits: the connection is upgraded. Returns the bytes that the client may send before its login."""
        if self._timer is not None:
            self._timer.cancel()
        return self._budget

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's does not inherit from it
        self._timer = asyncio.get_running_loop().call_later(ADMISSION_SECONDS, self._transport.abort)
        self._inner.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        self._budget -= len(data)
        if self._budget < 0 and self._transport is not None:
            self._transport.abort()
        else:
            self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        return self._inner.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._inner.connection_lost(exc)

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()
