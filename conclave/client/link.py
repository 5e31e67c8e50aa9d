"""One connection to a relay: requests with their replies, events, and a reason when it ends.

Nothing waits without a deadline: the connect, each reply and each ping have one, and a link that misses it ends. After
a lost reply nothing tells which request the next one answers. Events wait in a queue that is bounded in bytes; a
reader that falls further behind loses the link, and can resume from the history.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any, Self, TypeVar

import msgspec

from conclave.client.exchange import Answer, Exchange, FollowUp, Outcome, Received
from conclave.client.login import LoggedIn, Login, log_in
from conclave.client.trust import check_upgrade
from conclave.client.v2.login import Greeting, V2Login
from conclave.client.websocket import BROKEN, WebSocket
from conclave.errors import LinkError, LinkLost, OutOfStep, Refusal, UpgradeRefused
from conclave.protocol.credentials import Signer
from conclave.protocol.events import Event, Role
from conclave.protocol.requests import Ping, Request
from conclave.protocol.v2 import SUBPROTOCOL
from conclave.urls import check_url

EVENT_BYTES = 32 * 1024 * 1024
"""The greatest size of the event queue; beyond it the link ends."""

_MAY_BE_THE_OFFER = range(400, 429)
"""The statuses with which a server may refuse an upgrade because of the offered subprotocol."""

_R = TypeVar("_R")

_EVENT_OVERHEAD = 512  # bytes of memory for an event, besides its frame


class Timeouts(msgspec.Struct, frozen=True):
    """Seconds for the connect, for a reply, between pings, and for the close handshake."""

    connect: float = 10.0
    reply: float = 15.0
    ping: float = 20.0
    close: float = 1.0


class Link:
    """A session on a server. `connect` makes it; close it, or use it as an async context manager.

    `path` is `user/machine/session`; `admin` follows the Role events as they arrive; `server_id` is None if the
    server told none; `version` is that of the protocol; `cluster` is the id that the login was signed for, None in v1.
    """

    def __init__(self, url: str, logged_in: LoggedIn, wire: WebSocket, timeouts: Timeouts) -> None:
        self.url = url
        self.path = logged_in.path
        self.admin = False
        self.server_id = wire.server_id
        self.version = logged_in.version
        self.cluster = logged_in.cluster
        self._wire = wire
        self._timeouts = timeouts
        self._ping_seconds = min(timeouts.ping, max(1.0, logged_in.heartbeat or timeouts.ping))
        self._exchange: Exchange[asyncio.Future[Any]] = logged_in.exchange
        self._events: deque[tuple[Event, int]] = deque()
        self._waiting_bytes = 0
        self._changed = asyncio.Event()
        self._lost: LinkLost | None = None
        self._task = asyncio.create_task(self._run())
        for event in logged_in.events:
            self._hear(event, 0)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def server_ms(self) -> int:
        """Return Unix milliseconds by the server's clock, or by the local one if the server did not tell the time.

        The server tells it in whole seconds when the link comes up: the value is up to a second late, never early.
        """
        return self._wire.server_ms()

    async def request(self, request: Request[_R]) -> _R:
        """Send a request and return its result. Concurrent requests are sent in the order of the calls.

        Raises:
            Refusal: the server's answer instead of a result, or a request that this version cannot express.
            LinkLost: if the link ends first, or the deadline passes, which ends it. The request may have taken effect.
            FrameError: if a text has a lone surrogate, which cannot be encoded.
        """
        if self._lost is not None:
            raise self._why()
        reply: asyncio.Future[_R] = asyncio.get_running_loop().create_future()
        data = self._exchange.ask(request, reply)
        try:
            async with asyncio.timeout(self._timeouts.reply):
                await self._wire.send(data)
                return await reply
        except TimeoutError:
            raise self._end(
                LinkLost(f"timed out after {self._timeouts.reply:g}s waiting for a server response")
            ) from None
        except BROKEN as error:
            raise self._end(_unsendable(error)) from error

    @property
    def queued(self) -> int:
        """The number of events that have arrived and wait to be taken."""
        return len(self._events)

    async def next_event(self) -> Event:
        """Return the next event, in the server's order. One reader at a time; a cancelled call loses nothing.

        Raises:
            LinkLost: when the link has ended and all events before that were returned.
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
        """Yield every `next_event`, until LinkLost is raised."""
        while True:
            yield await self.next_event()

    async def close(self) -> None:
        """End the link and wait until the connection is closed. Open requests fail; a second call does nothing."""
        self._end(LinkLost("the link was closed here"))
        await asyncio.wait({self._task})
        await self._wire.close()  # a task that is cancelled before its first step has not closed it

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
                await self._take(self._exchange.receive(data), len(data))
            except OutOfStep as error:
                self._end(LinkLost(str(error)))
            except BROKEN as error:
                self._end(_unsendable(error))
        ending = self._exchange.closed(self._wire.closed)
        self._mark_ended(LinkLost(ending.shown, ending.reason, code=ending.code, retry_after=ending.retry_after))

    async def _take(self, outcome: Outcome[asyncio.Future[Any]] | None, size: int) -> None:
        if isinstance(outcome, Received):
            self._hear(outcome.event, size)
        elif isinstance(outcome, Answer):
            _resolve(outcome.ticket, outcome.result)
        elif isinstance(outcome, FollowUp):
            await self._wire.send(outcome.data)

    def _hear(self, event: Event, size: int) -> None:
        """Queue an event of `size` bytes. After the end nothing is queued, so an event without room leaves no gap."""
        if self._lost is not None:
            return
        if isinstance(event, Role):
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
                await asyncio.sleep(self._ping_seconds)
                await self.request(Ping())

    def _end(self, error: LinkLost) -> LinkLost:
        """End the link with `error`, unless it has ended already, and close the connection."""
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
        """Return the reason of the end as a new exception: one that is raised repeatedly grows its traceback."""
        lost = self._lost or LinkLost("the link is up")
        return LinkLost(str(lost), lost.reason, code=lost.code, retry_after=lost.retry_after)


def _unsendable(error: Exception) -> LinkLost:
    return LinkLost(f"failed to send control frame: {error}")


def _resolve(ticket: asyncio.Future[Any], outcome: object) -> None:
    if ticket.done():  # the caller has stopped waiting
        return
    if isinstance(outcome, Refusal | LinkLost):
        ticket.set_exception(outcome)
        ticket.exception()  # marks it as retrieved: a caller that is cancelled now causes no warning
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
    check_server: Callable[[str | None], None] | None = None,
    cluster: str | None = None,
) -> Link:
    """Connect to a server and log in under the session handle `session`, with `register` as a new (user, machine).

    `invite` is for servers that require one for a registration. `check_server` is given the server's id, None if there
    is none, before anything is sent; an exception that it raises ends the attempt and is passed on. `cluster` is the id
    that is expected there, None if any may answer. Protocol v2 is used where the server supports it.

    Raises:
        InvalidUrl: if `url` cannot be dialled.
        LoginRefused: if the server refuses; `conclave.client.retry.may_retry` decides about another attempt.
        NotTrusted: if another cluster answers than the expected one, or one that cannot be proven to be it.
        LinkError: if it cannot be reached, is no relay or does not answer in time.
    """
    timeouts = timeouts or Timeouts()
    wire = await _dial(check_url(url), timeouts)
    verb = "authentication" if register is None else "registration"
    version = 1 if wire.subprotocol is None else 2
    try:
        check_upgrade(url, cluster, wire.server_id, version=version)
        if check_server is not None:
            check_server(wire.server_id)
        login: Login[LoggedIn]
        if version == 1:
            from conclave.client.v1.login import V1Login  # noqa: PLC0415 - few servers speak it

            login = V1Login(session, key, register, invite)
        else:
            expected = cluster or wire.server_id
            login = V2Login(url, session, key, register=register, invite=invite, cluster=expected)
        logged_in = await log_in(wire, login, verb, timeouts.reply)
    except BaseException:
        await wire.close()
        raise
    return Link(url, logged_in, wire, timeouts)


async def identify(url: str, session: str, *, timeouts: Timeouts | None = None) -> str | None:
    """Return the id of the cluster at a URL, without a login; None for a server that supports v1 only.

    Raises:
        InvalidUrl, LoginRefused, LinkError: as `connect` does.
    """
    timeouts = timeouts or Timeouts()
    wire = await _dial(check_url(url), timeouts)
    try:
        if wire.subprotocol is None:
            return None
        return await log_in(wire, Greeting(url, session), "greeting", timeouts.reply)
    finally:
        await wire.close()


async def _dial(url: str, timeouts: Timeouts) -> WebSocket:
    """Connect with an offer of v2, and without it if the server refuses that upgrade.

    A server that does not know subprotocols ignores the offer or refuses it. If it refuses both attempts, the error is
    that of the second one.
    """
    try:
        return await WebSocket.dial(url, timeouts.connect, timeouts.close, (SUBPROTOCOL,))
    except UpgradeRefused as error:
        if error.status not in _MAY_BE_THE_OFFER:
            raise
    return await WebSocket.dial(url, timeouts.connect, timeouts.close)
