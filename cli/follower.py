"""Following a channel: live messages and history merged into one stream, over any number of connections.

A v2 server gives each message a position, sends events about the channel, and replays missed messages after a
reconnect: no merge is needed. A v1 server does none of that. There the history is read at the start, after each
reconnect, and periodically.
"""

import asyncio
import enum
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Protocol

from conclave.backoff import Backoff
from conclave.client.delivery_tracker import PAGE_ROWS, DeliveryTracker
from conclave.client.link import Link
from conclave.client.marks import at_time
from conclave.client.retry import may_retry, not_before
from conclave.errors import ConclaveError, LinkError, LinkLost, Refusal, in_words
from conclave.protocol.body import Body
from conclave.protocol.events import Event, Gap, Left, Message, Renamed, Whispered
from conclave.protocol.requests import History, Join, Joined, Page

CHECK_SECONDS = 30.0
"""The period of reading the history over v1, where only a refused read shows a kick or a deletion."""

UNPLACED_LIMIT = PAGE_ROWS
"""The number of live messages without a position after which the history is read up to them."""

SINCE_SLACK_MS = 5_000
"""The margin of `since`, for the difference between clocks and the time of connecting."""

_LEFT = {
    "kicked": "this session was removed from the channel",
    "banned": "you were banned from the channel",
    "removed": "you are not a member of the channel any more",
    "private": "the channel was made private, and you are not a member of it",
    "deleted": "the channel was deleted",
}


class Change(enum.Enum):
    """A change of the connection, to be shown."""

    LOST = "lost"
    RESUMED = "resumed"


class Screen(Protocol):
    """Shows a followed channel. The methods are called in the order of the events."""

    def started(self, channel: str, path: str) -> None: ...
    def message(self, channel: str, sender: str, body: Body, ts_ms: int | None) -> None: ...
    def whisper(self, sender: str, body: Body) -> None: ...
    def changed(self, change: Change, channel: str) -> None: ...
    def renamed(self, old: str, new: str) -> None: ...
    def gap(self, channel: str) -> None: ...


class Follower:
    """Shows every message of a channel once and in order: from `since` seconds ago, or from the join on.

    Whispers are shown as they arrive. A server stores none, so those sent while the connection is down are lost.
    """

    def __init__(
        self,
        dial: Callable[[], Awaitable[Link]],
        channel: str,
        since: int | None,
        screen: Screen,
        *,
        backoff: Backoff | None = None,
        check_seconds: float = CHECK_SECONDS,
    ) -> None:
        self._dial = dial
        self._channel = channel
        self._since = since
        self._screen = screen
        self._backoff = backoff or Backoff()
        self._check_seconds = check_seconds
        self._tracker: DeliveryTracker | None = None

    async def run(self) -> None:
        """Follow until a failure that no reconnect can repair.

        Raises:
            ConclaveError: the first connection failed, or the server ended the session for good.
        """
        while True:
            seconds = 0.0
            try:
                async with await self._dial() as link:
                    await self._follow(link)
            except LinkError as error:
                if self._tracker is None or not may_retry(error):
                    raise _final(error) from error
                seconds = not_before(error)
            except Refusal as error:
                if self._tracker is None or not may_retry(error):
                    raise ConclaveError(f"server terminated the stream: {in_words(error)}") from error
                seconds = not_before(error)
            await asyncio.sleep(max(self._backoff.wait(), seconds))

    async def _follow(self, link: Link) -> None:
        since = None if self._tracker is None else self._tracker.reconnected(link.version)
        try:
            joined = await link.request(Join(self._channel, since=since))
        except Refusal as error:
            if self._tracker is not None and may_retry(error):
                raise
            raise ConclaveError(f"join rejected: {in_words(error)}") from error
        if self._tracker is None:
            self._tracker = await self._begin(link, joined)
        else:
            self._screen.changed(Change.RESUMED, self._channel)
        try:
            if joined.recovered is None and not self._tracker.is_at(joined.position):
                await self._catch_up(link, self._tracker)  # else the server replays what was missed
            self._backoff.reset()
            await self._listen(link, self._tracker)
        except LinkLost as error:
            if may_retry(error):
                self._screen.changed(Change.LOST, self._channel)
            raise

    async def _begin(self, link: Link, joined: Joined) -> DeliveryTracker:
        """Return a tracker that starts at the position of the join, or at a time by the server's clock."""
        if self._since is None and joined.position is not None:
            tracker = DeliveryTracker(joined.position, ms=link.server_ms(), version=link.version)
        elif self._since is None:
            tracker = DeliveryTracker(at_time(await self._near_end(link)), version=link.version)
            async for page in self._unread(link, tracker):
                tracker.page(page)  # older than the join
        else:
            start = max(0, link.server_ms() - self._since * 1000 - SINCE_SLACK_MS)
            tracker = DeliveryTracker(at_time(start), version=link.version)
        self._screen.started(self._channel, link.path)
        return tracker

    async def _near_end(self, link: Link) -> int:
        """Return a time that few rows follow, but at least one, whatever the clocks are; 0 if the history is empty.

        Steps back from the present until a row follows, then halves the distance to the end while a page is full.
        """
        at, step, empty_at = link.server_ms() - 60_000, 60_000, None
        while not (rows := await self._rows_since(link, at)):
            if at <= 0:
                return 0
            empty_at, at, step = at, max(0, at - step), step * 4
        while empty_at is not None and rows >= PAGE_ROWS and empty_at - at > 1:
            middle = (at + empty_at) // 2
            later = await self._rows_since(link, middle)
            if later:
                at, rows = middle, later
            else:
                empty_at = middle
        return at

    async def _listen(self, link: Link, tracker: DeliveryTracker) -> None:
        clock = asyncio.get_running_loop().time
        check_seconds = self._check_seconds if link.version == 1 else math.inf
        check_at = clock() + check_seconds
        covered = 0  # the number of queued events that are older than the last read of the history
        while True:
            if clock() >= check_at or tracker.unplaced >= UNPLACED_LIMIT:
                covered = link.queued
                await self._catch_up(link, tracker)
                check_at = clock() + check_seconds
            try:
                async with asyncio.timeout_at(None if math.isinf(check_at) else check_at):
                    event = await link.next_event()
            except TimeoutError:
                continue
            known, covered = covered > 0, max(0, covered - 1)
            if not isinstance(event, Message):
                self._show_event(event)
            else:
                self._follow_rename(event.channel)
                show = None if known else tracker.live(event)
                if show is None:
                    if not known:
                        covered = link.queued
                        await self._catch_up(link, tracker)
                    show = not tracker.take_echo(event)
                if show:
                    self._screen.message(self._channel, event.from_, event.body, event.ts)

    def _show_event(self, event: Event) -> None:
        match event:
            case Whispered(from_=sender, body=body):
                self._screen.whisper(sender, body)
            case Gap(channel):
                self._screen.gap(channel)
            case Renamed(to=name):
                self._follow_rename(name)
            case Left(reason=reason):
                why = _LEFT.get(reason, "this session is not in the channel any more")
                raise ConclaveError(f"server terminated the stream: {why}")

    def _follow_rename(self, name: str) -> None:
        """Take a new name of the channel. This session is in one channel only, so another name is a rename."""
        if name != self._channel:
            self._screen.renamed(self._channel, name)
            self._channel = name

    async def _catch_up(self, link: Link, tracker: DeliveryTracker) -> None:
        """Read the history from the tracker's position to its end, and show the messages that were not shown yet."""
        async for page in self._unread(link, tracker):
            if page.lost:
                self._screen.gap(self._channel)
            for row in tracker.page(page):
                self._screen.message(self._channel, row.from_, row.body, row.ts)

    async def _unread(self, link: Link, tracker: DeliveryTracker) -> AsyncIterator[Page]:
        """Yield the pages after the tracker's position. The tracker must take each before the next one is requested."""
        more = True
        while more:
            page = await self._read(link, tracker.next_page(self._channel))
            yield page
            more = page.more

    async def _rows_since(self, link: Link, ms: int) -> int:
        """Return the number of rows of the page that begins after a time."""
        page = await self._read(link, History(self._channel, after_ts=ms, limit=PAGE_ROWS))
        return len(page.messages)

    async def _read(self, link: Link, request: History) -> Page:
        """Read a page. A refusal that passes is retried while the link lasts."""
        pause = Backoff(longest=5.0)
        while True:
            try:
                return await link.request(request)
            except Refusal as error:
                if self._tracker is None or not may_retry(error):
                    raise
            await asyncio.sleep(pause.wait())


def _final(error: LinkError) -> ConclaveError:
    if isinstance(error, LinkLost) and error.reason is not None:
        return ConclaveError(f"server terminated the stream: {error}")
    return error
