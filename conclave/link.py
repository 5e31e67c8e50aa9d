"""One connection to a relay: requests with their replies, events, and a reason when it ends.

A link answers or fails; it never waits for ever. Connecting, each reply and each ping have a deadline, and a link that
misses one is over: after a lost reply nothing says which request the next one answers. Events wait in a queue that is
bounded in bytes; a reader who falls behind by more loses the link rather than the memory, and can resume from history.
"""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import AsyncIterator
from typing import Self

import msgspec

from conclave.closing import LinkLost, LoginRefused, in_words
from conclave.errors import Code, FrameError, LinkError, Refusal
from conclave.exchange import CLOSED, Answer, Event, Exchange, Heard, OutOfStep
from conclave.handshake import ClientHandshake, Send, Signer
from conclave.model import SessionPath
from conclave.urls import check_url
from conclave.v1 import decode, encode
from conclave.v1.errors import refusal
from conclave.v1.frames import Error, Established, Frame, Ping, ServerInfo, Whisper
from conclave.wire import BROKEN, MESSAGE_BYTES, Wire

EVENT_BYTES = 32 * 1024 * 1024
"""How much may wait in the event queue before the link is given up."""

_EVENT_OVERHEAD = 512  # bytes: what an event costs in memory besides its frame

_log = logging.getLogger(__name__)


class Timeouts(msgspec.Struct, frozen=True):
    """In seconds: to be connected, to be answered, between pings, to say goodbye."""

    connect: float = 10.0
    reply: float = 15.0
    ping: float = 20.0
    close: float = 1.0


class Link:
    """A session on a server. Made by `connect`; close it, or use it as an async context manager."""

    def __init__(self, url: str, path: SessionPath, wire: Wire, timeouts: Timeouts) -> None:
        self.url = url
        self.path = path
        self.admin = False
        self.server_id = wire.server_id
        self._wire = wire
        self._timeouts = timeouts
        self._exchange: Exchange[asyncio.Future[Frame]] = Exchange()
        self._events: deque[tuple[Event, int]] = deque()
        self._waiting_bytes = 0
        self._changed = asyncio.Event()
        self._lost: LinkLost | None = None
        self._farewell: tuple[str, str] | None = None
        self._task = asyncio.create_task(self._run())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def server_ms(self) -> int:
        """Return Unix milliseconds by the server's clock, or by the local one if the server did not tell the time.

        The server told it in whole seconds when the link came up: the value is up to a second late, never early.
        """
        return self._wire.server_ms()

    async def request(self, frame: Frame) -> Frame:
        """Send a request and return its reply. Concurrent requests are sent in the order of the calls.

        Raises:
            Refusal: what the server answers instead.
            LinkLost: if the link ends first, or the deadline passes, which ends it. Whether the request took effect
                is not known then.
        """
        data = encode(frame)
        if len(data) > MESSAGE_BYTES:
            raise Refusal(Code.TOO_LARGE, f"a frame of {len(data)} bytes exceeds the {MESSAGE_BYTES} byte cap")
        if self._lost is not None:
            raise self._why()
        reply: asyncio.Future[Frame] = asyncio.get_running_loop().create_future()
        self._exchange.ask(frame, reply)
        try:
            async with asyncio.timeout(self._timeouts.reply):
                await self._wire.send(data)
                return await reply
        except TimeoutError:
            raise self._end(
                LinkLost(f"timed out after {self._timeouts.reply:g}s waiting for a server response")
            ) from None
        except BROKEN as error:
            raise self._end(LinkLost(f"failed to send control frame: {error}")) from error

    @property
    def queued(self) -> int:
        """How many events have arrived and wait to be taken."""
        return len(self._events)

    async def next_event(self) -> Event:
        """Return what the server sent by itself, in its order. One reader at a time; cancelling loses nothing.

        Raises:
            LinkLost: when the link has ended and everything before that was returned.
        """
        while not self._events:
            if self._lost is not None:
                raise self._why()
            self._changed.clear()
            await self._changed.wait()
        event, size = self._events.popleft()
        self._waiting_bytes -= size
        return event

    async def events(self) -> AsyncIterator[Event]:
        """Yield every `next_event`; ends as that does, by raising LinkLost."""
        while True:
            yield await self.next_event()

    async def close(self) -> None:
        """End the link and wait until the connection is closed. Open requests fail; closing again does nothing."""
        self._end(LinkLost("the link was closed here"))
        await asyncio.wait({self._task})
        await self._wire.close()  # a task that was cancelled before its first step did not do it

    # --- Inside ---

    async def _run(self) -> None:
        try:
            async with asyncio.TaskGroup() as tasks:
                pinging = tasks.create_task(self._ping())
                await self._read()
                pinging.cancel()
        finally:
            self._mark_ended(LinkLost("the link failed"))
            await self._wire.close()

    async def _read(self) -> None:
        while (data := await self._wire.receive()) is not None:
            try:
                self._receive(decode(data), len(data))
            except FrameError as error:
                # With no request open it cannot be a reply, so nothing is lost by skipping what a newer server sends.
                _log.debug("undecodable frame from %s: %s", self.url, error)
                if self._exchange.open_tickets():
                    self._end(LinkLost(f"undecodable response: {error}"))
            except OutOfStep as error:
                self._end(LinkLost(str(error)))
        reason, shown = self._farewell or (None, self._exchange.closed(orderly=self._wire.closed_orderly))
        self._mark_ended(LinkLost(shown, reason))

    def _receive(self, frame: Frame, size: int) -> None:
        outcome = self._exchange.receive(frame)
        self._farewell = None
        if isinstance(outcome, Heard):
            self.hear(outcome.event, size)
        elif isinstance(outcome, Answer):
            if isinstance(outcome.reply, Refusal):
                # Should the server close right after it, this was the reason, in words that are unknown here.
                self._farewell = (outcome.reply.message, in_words(outcome.reply))
            _resolve(outcome.ticket, outcome.reply)
        elif outcome is not None:
            self._farewell = (outcome.reason, outcome.shown)

    def hear(self, event: Event, size: int) -> None:
        """Put an event of `size` bytes into the queue; `connect` does so for what came before the login was over."""
        if isinstance(event, ServerInfo):
            self.admin = event.admin
        size += _EVENT_OVERHEAD
        if self._waiting_bytes + size > EVENT_BYTES:
            self._end(LinkLost("too many events are waiting to be read here"))
            return
        self._events.append((event, size))
        self._waiting_bytes += size
        self._changed.set()

    async def _ping(self) -> None:
        with contextlib.suppress(LinkError):
            while True:
                await asyncio.sleep(self._timeouts.ping)
                await self.request(Ping())

    def _end(self, error: LinkLost) -> LinkLost:
        """Make `error` the end of the link, unless it has ended already, and let go of the connection."""
        if self._lost is None:
            self._mark_ended(error)
            self._task.cancel()
        return self._why()

    def _mark_ended(self, error: LinkLost) -> None:
        if self._lost is not None:
            return
        self._lost = error
        for ticket in self._exchange.open_tickets():
            _resolve(ticket, self._why())
        self._changed.set()

    def _why(self) -> LinkLost:
        """Return what ended the link, as a fresh exception: one that is raised again and again grows with each."""
        lost = self._lost or LinkLost("the link is up")
        return LinkLost(str(lost), lost.reason)


def _resolve(ticket: asyncio.Future[Frame], outcome: Frame | Refusal | LinkLost) -> None:
    if ticket.done():  # whoever asked has stopped waiting
        return
    if isinstance(outcome, Refusal | LinkLost):
        ticket.set_exception(outcome)
        ticket.exception()  # seen: a caller that was cancelled in between leaves no warning behind
    else:
        ticket.set_result(outcome)


async def connect(
    url: str,
    key: Signer,
    session: str,
    *,
    register: tuple[str, str] | None = None,
    invite: str | None = None,
    timeouts: Timeouts | None = None,
) -> Link:
    """Connect to a server and log in under the session handle `session`, with `register` as a new (user, machine).

    `invite` is what a server wants to see that registers only those who were invited.

    Raises:
        InvalidUrl: if `url` cannot be dialled.
        LoginRefused: if the server refuses; `conclave.closing.may_retry` tells whether to come back.
        LinkError: if it cannot be reached, is no relay or does not answer in time.
    """
    timeouts = timeouts or Timeouts()
    wire = await Wire.dial(check_url(url), timeouts.connect, timeouts.close)
    try:
        path, early = await _log_in(wire, ClientHandshake(session, key, register, invite), timeouts.reply)
    except Refusal as error:
        await wire.close()
        verb = "authentication" if register is None else "registration"
        prefix = "" if error.code is Code.VERSION else f"{verb} rejected: "
        raise LoginRefused(prefix + in_words(error), error) from error
    except BaseException:
        await wire.close()
        raise
    link = Link(url, path, wire, timeouts)
    for whisper in early:
        link.hear(whisper, 0)
    return link


async def _log_in(wire: Wire, handshake: ClientHandshake, deadline: float) -> tuple[SessionPath, list[Whisper]]:
    early: list[Whisper] = []
    try:
        await wire.send(encode(handshake.hello()))
        while True:
            async with asyncio.timeout(deadline):
                data = await wire.receive()
            if data is None:
                raise LinkError(CLOSED)
            frame = decode(data)
            if isinstance(frame, Error):
                raise refusal(frame.error)
            step = _next_step(handshake, frame)
            if isinstance(step, Established):
                return step.path, early
            if isinstance(step, Whisper):
                early.append(step)
                continue
            for answer in step.frames:
                await wire.send(encode(answer))
    except TimeoutError:
        raise LinkError(f"timed out after {deadline:g}s waiting for a server response") from None
    except FrameError as error:
        raise LinkError(f"undecodable response: {error}") from error
    except BROKEN as error:
        raise LinkError(f"websocket error: {error}") from error


def _next_step(handshake: ClientHandshake, frame: Frame) -> Send | Established | Whisper:
    """Advance the handshake; what has no place in it is a fault of the server, not a refusal by it."""
    try:
        return handshake.receive(frame)
    except Refusal as error:
        raise LinkError(error.message) from error
