"""What waits for one socket: joined into few writes, bounded in bytes, never awaited.

Almost all of a delivery's cost is the kernel's send, so fewer writes is what counts (docs/decisions/0001). A frame for
an idle session is written at once; while a session is busy, frames gather for a few milliseconds and go out in one
write. What is pending here and in the transport together is bounded: whoever exceeds it is a slow reader.
"""

import asyncio
from collections.abc import Callable
from typing import Protocol

WINDOW_SECONDS = 0.01
"""How long frames for a busy session gather."""
FLUSH_BYTES = 64 * 1024
"""How much gathers at most before it is written."""


class Writer(Protocol):
    """The part of a transport that an outbox uses."""

    def write(self, data: bytes) -> None: ...
    def is_closing(self) -> bool: ...
    def get_write_buffer_size(self) -> int: ...


class Flusher:
    """Flushes the outboxes of one node that have something pending, all of them together once per window."""

    def __init__(self, sent: Callable[[int], None]) -> None:
        """`sent` is told of every write, in bytes."""
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

    Before `open` frames are held back, so that nothing overtakes the answer to the login. A write to a peer that is
    gone is dropped silently: the reader of that socket learns of it.
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
        """`limit` bounds what is pending, in bytes; at the first frame beyond it `on_overflow` is called, once."""
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
        """Bytes that the kernel has not taken yet."""
        return self._pending_bytes + self._writer.get_write_buffer_size()

    def open(self, *frames: bytes) -> None:
        """Write these frames first, then what was held back."""
        self._held = False
        self._pending[:0] = frames
        self._pending_bytes += sum(map(len, frames))
        self.flush()

    def push(self, frame: bytes) -> None:
        """Send a frame soon: at once if the session has been idle, else with others of the same moment."""
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
        """Send a frame now, behind what is pending: the reply to a request."""
        if not (self._finished or self._overflowed):
            self._pending.append(frame)
            self._pending_bytes += len(frame)
            self.flush()

    def mute(self) -> None:
        """Drop what is pushed from now on: the session is about to end. Replies and last words still go out."""
        self._muted = True

    def flush(self) -> None:
        """Write what is pending, in one call."""
        if not self._pending or self._held:
            return
        if self._writer.get_write_buffer_size() + self._pending_bytes > self._limit:
            self._overflow()
            return
        self._write(b"".join(self._pending) if len(self._pending) > 1 else self._pending[0])
        self._clear()

    def finish(self, *frames: bytes) -> None:
        """Write what is pending and these last frames; whatever is pushed later is dropped."""
        if self._finished:
            return
        self._finished = True
        self._write(b"".join((*self._pending, *frames)))
        self._clear()

    def _overflow(self) -> None:
        """Let go of what is pending, take nothing more, and have the peer dropped."""
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
