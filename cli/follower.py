"""Following a channel: live messages and history joined into one stream, over any number of connections.

A v2 server names each message's position, tells what happens to the channel, and after a reconnect begins where the
last message was: then there is nothing to join. A v1 server does none of that, so there the history is read: at first,
after a reconnect, and from time to time.
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
"""How often the history is read though nothing calls for it: v1 tells a kick or a delete by nothing else."""

UNPLACED_LIMIT = PAGE_ROWS
"""How many live messages are accounted for before the history is read up to them."""

SINCE_SLACK_MS = 5_000
"""How much further back than asked `since` goes, because clocks and connections take their time."""

_LEFT = {
    "kicked": "this session was removed from the channel",
    "banned": "you were banned from the channel",
    "removed": "you are not a member of the channel any more",
    "private": "the channel was made private, and you are not a member of it",
    "deleted": "the channel was deleted",
}


class Change(enum.Enum):
    """What happened to the connection, for whoever watches."""

    LOST = "lost"
    RESUMED = "resumed"


class Screen(Protocol):
    """Where a followed channel is shown."""

    def started(self, channel: str, path: str) -> None: ...
    def message(self, channel: str, sender: str, body: Body, ts_ms: int | None) -> None: ...
    def whisper(self, sender: str, body: Body) -> None: ...
    def changed(self, change: Change, channel: str) -> None: ...
    def renamed(self, old: str, new: str) -> None: ...
    def gap(self, channel: str) -> None: ...


class Follower:
    """Shows every message of a channel once: from `since` seconds ago, or from the first line on.

    Whispers are shown as they come; a server keeps none, so those sent while the connection is down are lost.
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
        """Follow until something final ends it.

        Raises:
            ConclaveError: why it ended: the first connection failed, or what the server said is final.
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
                await self._catch_up(link, self._tracker)  # else the server says by itself what was missed
            self._backoff.reset()
            await self._listen(link, self._tracker)
        except LinkLost as error:
            if may_retry(error):
                self._screen.changed(Change.LOST, self._channel)
            raise

    async def _begin(self, link: Link, joined: Joined) -> DeliveryTracker:
        """Find the position to start from: that of the join, or one by the server's clock."""
        if self._since is None and joined.position is not None:
            tracker = DeliveryTracker(joined.position, ms=link.server_ms(), version=link.version)
        elif self._since is None:
            tracker = DeliveryTracker(at_time(await self._near_end(link)), version=link.version)
            async for page in self._unread(link, tracker):
                tracker.page(page)  # older than the first line
        else:
            start = max(0, link.server_ms() - self._since * 1000 - SINCE_SLACK_MS)
            tracker = DeliveryTracker(at_time(start), version=link.version)
        self._screen.started(self._channel, link.path)
        return tracker

    async def _near_end(self, link: Link) -> int:
        """Return a time with few rows behind it, whatever the clocks say: one with a row behind it, or 0 if none has.

        Steps back from about now until there is a row, then halves the distance to the end while a page is full.
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
        covered = 0  # how many of the next events had arrived before the history was last read
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
                self._heard(event)
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

    def _heard(self, event: Event) -> None:
        match event:
            case Whispered(from_=sender, body=body):
                self._screen.whisper(sender, body)
            case Gap(channel):
                self._screen.gap(channel)
            case Renamed(to=name):
                self._follow_rename(name)
            case Left(reason=reason):
                why = _LEFT.get(reason, "this session does not hear the channel any more")
                raise ConclaveError(f"server terminated the stream: {why}")

    def _follow_rename(self, name: str) -> None:
        """A session that joined one channel hears one channel: another name means that it was renamed."""
        if name != self._channel:
            self._screen.renamed(self._channel, name)
            self._channel = name

    async def _catch_up(self, link: Link, tracker: DeliveryTracker) -> None:
        """Read the history from the tracker's position to its end, and show what was not shown yet."""
        async for page in self._unread(link, tracker):
            if page.lost:
                self._screen.gap(self._channel)
            for row in tracker.page(page):
                self._screen.message(self._channel, row.from_, row.body, row.ts)

    async def _unread(self, link: Link, tracker: DeliveryTracker) -> AsyncIterator[Page]:
        """Yield the pages behind the tracker's position, each to be entered before the next one is asked for."""
        more = True
        while more:
            page = await self._read(link, tracker.next_page(self._channel))
            yield page
            more = page.more

    async def _rows_since(self, link: Link, ms: int) -> int:
        """Return how many rows a page has that begins behind a time."""
        page = await self._read(link, History(self._channel, after_ts=ms, limit=PAGE_ROWS))
        return len(page.messages)

    async def _read(self, link: Link, request: History) -> Page:
        """Read a page; a server that cannot do it for a while is asked again while the link lasts."""
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
