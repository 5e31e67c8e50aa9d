"""The frames that wait for one session's socket: joined into few writes, bounded in bytes, never awaited.

Almost all of a delivery's cost is the kernel's send, so the number of writes counts (docs/decisions/0001). A frame for
an idle session is written immediately; frames for a busy session gather for a few milliseconds and go out in one write.
Pending frames, here and in the transport, have one bound in bytes; a session that exceeds it is a slow reader.
"""

import asyncio
from collections.abc import Callable
from typing import Protocol

WINDOW_SECONDS = 0.01
"""The time for which frames for a busy session gather."""
FLUSH_BYTES = 64 * 1024
"""The size at which gathered frames are written before that time is over."""


class Writer(Protocol):
    """The part of a transport that an outbox uses."""

    def write(self, data: bytes) -> None: ...
    def is_closing(self) -> bool: ...
    def get_write_buffer_size(self) -> int: ...


class Flusher:
    """Flushes the outboxes of one node that have pending frames, all of them once per window."""

    def __init__(self, sent: Callable[[int], None]) -> None:
        """`sent` is called with the size of every write, in bytes."""
        self.sent = sent
        self._dirty: list[Outbox] = []
        self._timer: asyncio.TimerHandle | None = None

    def add(self, outbox: "Outbox") -> None:
        self._dirty.append(outbox)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(WINDOW_SECONDS, self._flush)

    def _flush(self) -> None:
        self._timer = None
        dirty, self._dirty = self._dirty, []
        for outbox in dirty:
            outbox.flush()


class Outbox:
    """The frames for one socket, in order.

    Frames are held until `open`, so that none overtakes the answer to the login. A write to a client that is gone is
    dropped silently: the reader of the socket notices.
    """

    def __init__(
        self,
        writer: Writer,
        flusher: Flusher,
        *,
        limit: int,
        on_overflow: Callable[[], None],
        clock: Callable[[], float],
    ) -> None:
        """`limit` bounds the pending frames, in bytes. `on_overflow` is called once, for the first frame beyond it."""
        self._writer = writer
        self._flusher = flusher
        self._limit = limit
        self._on_overflow = on_overflow
        self._clock = clock
        self._pending: list[bytes] = []
        self._pending_bytes = 0
        self._held = True
        self._muted = False
        self._finished = False
        self._overflowed = False
        self._last_write = -WINDOW_SECONDS

    @property
    def buffered(self) -> int:
        """Bytes that the kernel has not accepted yet."""
        return self._pending_bytes + self._writer.get_write_buffer_size()

    def open(self, *frames: bytes) -> None:
        """Write these frames first, then those that were held."""
        self._held = False
        self._pending[:0] = frames
        self._pending_bytes += sum(map(len, frames))
        self.flush()

    def push(self, frame: bytes) -> None:
        """Send a frame: immediately if the session is idle, else with the others of the same window."""
        if self._muted or self._finished or self._overflowed:
            return
        self._pending.append(frame)
        self._pending_bytes += len(frame)
        if self._held:
            if self._pending_bytes > self._limit:
                self._overflow()
        elif self._pending_bytes >= FLUSH_BYTES or (
            len(self._pending) == 1 and self._clock() - self._last_write >= WINDOW_SECONDS
        ):
            self.flush()
        elif len(self._pending) == 1:
            self._flusher.add(self)

    def send(self, frame: bytes) -> None:
        """Send a frame immediately, behind those that are pending: the reply to a request."""
        if not (self._finished or self._overflowed):
            self._pending.append(frame)
            self._pending_bytes += len(frame)
            self.flush()

    def mute(self) -> None:
        """Drop events from now on, because the session ends. The reply under way and the close still go out."""
        self._muted = True

    def flush(self) -> None:
        """Write the pending frames, in one call."""
        if not self._pending or self._held:
            return
        if self._writer.get_write_buffer_size() + self._pending_bytes > self._limit:
            self._overflow()
            return
        self._write(b"".join(self._pending) if len(self._pending) > 1 else self._pending[0])
        self._clear()

    def finish(self, *frames: bytes) -> None:
        """Write the pending frames and these last ones. Later frames are dropped."""
        if self._finished:
            return
        self._finished = True
        self._write(b"".join((*self._pending, *frames)))
        self._clear()

    def _overflow(self) -> None:
        """Drop the pending frames and all later ones, and have the client disconnected."""
        self._clear()
        if not self._overflowed:
            self._overflowed = True
            self._on_overflow()

    def _clear(self) -> None:
        self._pending.clear()
        self._pending_bytes = 0

    def _write(self, data: bytes) -> None:
        if data and not self._writer.is_closing():  # uvloop raises on a write after the close
            self._writer.write(data)
            self._flusher.sent(len(data))
            self._last_write = self._clock()
