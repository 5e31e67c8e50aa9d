"""A bound on what a peer can make the relay buffer before it has logged in."""

import asyncio
from collections.abc import Callable
from typing import cast


class Meter(asyncio.Protocol):
    """Stands between a transport and its protocol and stops reading after `budget` bytes, until it is taken out."""

    def __init__(self, transport: asyncio.Transport, budget: int, on_excess: Callable[[], None]) -> None:
        self._transport = transport
        self._inner = cast("asyncio.Protocol", transport.get_protocol())
        self._budget = budget
        self._on_excess = on_excess
        self._paused = False
        transport.set_protocol(self)

    @property
    def exceeded(self) -> bool:
        return self._paused

    def lift(self) -> None:
        """Let everything through from now on, without a detour."""
        self._transport.set_protocol(self._inner)
        if self._paused and not self._transport.is_closing():
            self._paused = False
            self._transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        self._budget -= len(data)
        if self._budget < 0 and not self._paused:
            self._paused = True
            self._transport.pause_reading()
            self._on_excess()
        self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        return self._inner.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self._inner.connection_lost(exc)

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()
