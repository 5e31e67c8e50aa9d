"""The frames that wait for one session's socket: joined into few writes, bounded in bytes, never awaited.

Almost all of a delivery's cost is the kernel's send, so the number of writes counts (docs/decisions/0001). The frames
of one tick of the event loop go out in one write per session at its end. In a burst events gather for longer
(`FlushPolicy`); the reply to a request does not wait for more than the tick. Pending frames, here and in the transport,
have one bound in bytes; a session that exceeds it is a slow reader.
"""

import asyncio
import time
from collections.abc import Callable, Collection
from typing import Protocol

import structlog

log = structlog.get_logger()

FLUSH_BYTES = 64 * 1024
"""The size of gathered frames at which they are written without a delay."""
_FACTOR = 4
"""The time from a flush to the next one, in durations of the first: flushes take a fifth of the time then."""
_JOINED = 2
"""The frames per write from which on waiting pays off."""


class Writer(Protocol):
    """The part of a transport that an outbox uses."""

    def write(self, data: bytes) -> None: ...
    def is_closing(self) -> bool: ...
    def get_write_buffer_size(self) -> int: ...


def call_in(delay: float, callback: Callable[[], None]) -> None:
    """Have the running event loop call back after so many seconds; after 0 at the end of this tick."""
    loop = asyncio.get_running_loop()
    if delay:
        loop.call_later(delay, callback)
    else:
        loop.call_soon(callback)


class FlushPolicy:
    """Chooses the time of the next flush, by how long the flushes take and what they join. No I/O.

    A flush writes to one socket after the other, so its duration is the load that writes are. While it runs, events
    arrive, and the next flush joins them. If it joined several events of a session, they come faster than they are
    written, and the one after it waits, for a multiple of its duration: it joins more. Otherwise nothing would be
    gained, so nothing waits. All times are in seconds, by one monotonic clock.
    """

    def __init__(self, max_gather: float) -> None:
        """`max_gather` bounds the time for which a frame waits; 0 has every tick flush."""
        self._max_gather = max_gather
        self._next = 0.0

    def delay(self, now: float) -> float:
        """Return how long a frame that is there `now` waits for the flush: 0 if that is at the end of the tick."""
        return max(0.0, self._next - now)

    def record(self, began: float, ended: float, *, frames: int, writes: int) -> None:
        """Record a flush that has written so many frames in so many writes."""
        wait = min(self._max_gather, _FACTOR * (ended - began)) if frames >= _JOINED * writes else 0.0
        self._next = ended + wait


class Flusher:
    """Flushes the outboxes of one node: those with events when the policy says so, those with a reply in every tick."""

    def __init__(
        self,
        sent: Callable[[int], None],
        policy: FlushPolicy,
        *,
        clock: Callable[[], float] = time.perf_counter,
        schedule: Callable[[float, Callable[[], None]], None] = call_in,
    ) -> None:
        """`sent` is called with the size of every write, in bytes. `clock` is monotonic, in seconds."""
        self.sent = sent
        self._policy = policy
        self._clock = clock
        self._schedule = schedule
        self._scheduled = False
        self._with_events: list[Outbox] = []
        self._with_replies: list[Outbox] = []
        self._frames = 0
        self._gathered_bytes = 0
        self._joined_frames: list[bytes] = []
        self._joined = b""

    def push(self, frame: bytes, outboxes: "Collection[Outbox]", besides: "Outbox | None" = None) -> None:
        """Put an event into each of these outboxes, except into one of them, which is among them."""
        with_events = self._with_events
        for outbox in outboxes:
            if outbox is not besides:
                events = outbox.events
                if not events:
                    with_events.append(outbox)
                events.append(frame)
        self._frames += len(outboxes) - (besides is not None)
        self._gathered_bytes += len(frame)
        if self._gathered_bytes >= FLUSH_BYTES:
            self._flush_events()
        elif not self._scheduled:
            self._scheduled = True
            self._schedule(self._policy.delay(self._clock()), self._flush_scheduled)

    def add_reply(self, outbox: "Outbox") -> None:
        """Flush an outbox at the end of this tick."""
        if not self._with_replies:
            self._schedule(0, self._flush_replies)
        self._with_replies.append(outbox)

    def join(self, frames: list[bytes]) -> bytes:
        """Return the frames as one. The listeners of a channel, which have the same frames pending, share it."""
        if frames != self._joined_frames:
            self._joined_frames, self._joined = frames.copy(), b"".join(frames)
        return self._joined

    def _flush_scheduled(self) -> None:
        self._scheduled = False
        self._flush_events()

    def _flush_events(self) -> None:
        outboxes, self._with_events, self._gathered_bytes = self._with_events, [], 0
        frames, self._frames = self._frames, 0
        began = self._clock()
        for outbox in outboxes:
            _flush(outbox)
        self._policy.record(began, self._clock(), frames=frames, writes=len(outboxes))
        self._joined_frames, self._joined = [], b""

    def _flush_replies(self) -> None:
        outboxes, self._with_replies = self._with_replies, []
        for outbox in outboxes:
            _flush(outbox)


def _flush(outbox: "Outbox") -> None:
    """Flush one of several outboxes. A defect ends its session, which can resume, and leaves the others alone."""
    try:
        outbox.flush()
    except Exception:
        log.exception("outbox.failed")
        outbox.give_up()


class _Dropped(list[bytes]):
    """The pending events of an outbox that takes none any more: never empty, and without content."""

    def append(self, frame: bytes) -> None:
        """Drop an event."""

    def __bool__(self) -> bool:
        return True


_DROPPED = _Dropped()


class Outbox:
    """The frames for one socket, in order.

    Frames are held until `open`, so that none overtakes the answer to the login. A write to a client that is gone is
    dropped silently: the reader of the socket notices.
    """

    __slots__ = (
        *("_counted_bytes", "_finished", "_flusher", "_held", "_limit", "_on_overflow", "_overflowed", "_pending"),
        *("_writer", "events"),
    )

    def __init__(self, writer: Writer, flusher: Flusher, *, limit: int, on_overflow: Callable[[], None]) -> None:
        """`limit` bounds the pending frames, in bytes. `on_overflow` is called once, for the first frame beyond it."""
        self._writer = writer
        self._flusher = flusher
        self._limit = limit
        self._on_overflow = on_overflow
        self._pending: list[bytes] = []
        self.events = self._pending
        """The list to which a flusher appends events. The flusher has to know an outbox that it makes non-empty."""
        self._counted_bytes = 0
        """The size of the replies that are pending, and of all frames while they are held."""
        self._held = True
        self._finished = False
        self._overflowed = False

    @property
    def buffered(self) -> int:
        """Bytes that the kernel has not accepted yet."""
        return sum(map(len, self._pending)) + self._writer.get_write_buffer_size()

    def open(self, *frames: bytes) -> None:
        """Write these frames first, then those that were held."""
        self._held = False
        self._pending[:0] = frames
        self.flush()

    def push(self, frame: bytes) -> None:
        """Send an event, with the others that the flusher gathers."""
        if self._held:
            self._hold(frame)
        else:
            self._flusher.push(frame, (self,))

    def send(self, frame: bytes) -> None:
        """Send the reply to a request at the end of this tick, behind the frames that are pending."""
        if self._finished or self._overflowed:
            return
        self._pending.append(frame)
        self._counted_bytes += len(frame)
        if self._counted_bytes >= FLUSH_BYTES:
            self.flush()
        elif self._counted_bytes == len(frame):
            self._flusher.add_reply(self)

    def mute(self) -> None:
        """Drop events from now on, because the session ends. The reply under way and the close still go out."""
        self.events = _DROPPED

    def flush(self) -> None:
        """Write the pending frames, in one call."""
        if not self._pending or self._held:
            return
        data = self._flusher.join(self._pending) if len(self._pending) > 1 else self._pending[0]
        self._clear()
        if self._writer.get_write_buffer_size() + len(data) > self._limit:
            self.give_up()
        else:
            self._write(data)

    def finish(self, *frames: bytes) -> None:
        """Write the pending frames and these last ones. Later frames are dropped."""
        if self._finished:
            return
        self._finished = True
        self._write(b"".join((*self._pending, *frames)))
        self._end()

    def _hold(self, frame: bytes) -> None:
        if self.events is self._pending:
            self._pending.append(frame)
            self._counted_bytes += len(frame)
            if self._counted_bytes > self._limit:
                self.give_up()

    def give_up(self) -> None:
        """Drop the pending frames and all later ones, and have the client disconnected."""
        self._end()
        if not self._overflowed:
            self._overflowed = True
            self._on_overflow()

    def _end(self) -> None:
        self._clear()
        self.mute()

    def _clear(self) -> None:
        self._pending.clear()
        self._counted_bytes = 0

    def _write(self, data: bytes) -> None:
        if data and not self._writer.is_closing():  # uvloop raises on a write after the close
            self._writer.write(data)
            self._flusher.sent(len(data))
