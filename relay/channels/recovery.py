"""Recovery: where live delivery lost messages, the log is read until every message was delivered or reported lost."""

import asyncio
from collections.abc import Iterable, Mapping

import structlog

from relay.channels.access import Access
from relay.channels.local_channel import LocalChannel
from relay.channels.log_reader import CONCURRENT_PAGES, RETRY_SECONDS, LogReader
from relay.model.errors import StoreUnavailable
from relay.model.message import order
from relay.observability.metrics import Metrics
from relay.redis.channel_log import DELETED, ChannelLog, LogPage

log = structlog.get_logger()

_PAGE_BYTES = 1024 * 1024
_COMPARE_SECONDS = 5.0


class Recovery:
    """Reads the logs of channels whose order is not live."""

    def __init__(
        self, channels: Mapping[str, LocalChannel], access: Access, channel_log: ChannelLog, metrics: Metrics
    ) -> None:
        """`channels` are those of the node, by id. One that is not in there any more is read no further."""
        self._channels = channels
        self._reader = LogReader(channel_log, access, page_bytes=_PAGE_BYTES)
        self._log = channel_log
        self._metrics = metrics
        self._queue: asyncio.Queue[LocalChannel] = asyncio.Queue()

    def schedule(self, channel: LocalChannel) -> None:
        """Have the log of a channel read, if its order needs it."""
        if channel.needs_recovery:
            channel.recovering = True
            self._queue.put_nowait(channel)

    def interrupted(self, channels: Iterable[LocalChannel]) -> None:
        """Have the logs of channels read: a connection was lost, or their subscriptions were interrupted."""
        for channel in channels:
            channel.interrupt()
            self.schedule(channel)

    async def serve(self) -> None:
        """Read logs until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._compare())
            for _ in range(CONCURRENT_PAGES):
                tasks.create_task(self._recover_scheduled())

    async def _compare(self) -> None:
        """Find channels whose last messages were lost, without a later message that would show it.

        A replica that had to be copied again does not repeat what was published meanwhile, and keeps its connections.
        Another server may have taken over without an interruption of the subscriptions.
        """
        while True:
            channels = [channel for channel in self._channels.values() if channel.started]
            tips = await self._log.delivered_tips([channel.id for channel in channels])
            await asyncio.sleep(_COMPARE_SECONDS)
            for channel in channels:
                link = self._log.link_to(channel.id)
                if link is not None and channel.unconfirmed(link) is not None:
                    channel.ordering.require_log()
                    self.schedule(channel)
            for channel, tip in zip(channels, tips, strict=False):
                new_version = tip.version > channel.version or (tip.version == DELETED and not channel.deleted)
                behind = order(channel.ordering.position) < order(tip.tip)
                if channel.ordering.is_live and (new_version or behind):
                    log.warning("channel.silent", channel=channel.id, after=channel.ordering.position, tip=tip.tip)
                    channel.ordering.require_log()
                    self.schedule(channel)

    async def _recover_scheduled(self) -> None:
        while True:
            channel = await self._queue.get()
            try:
                await self._recover(channel)
            finally:
                channel.recovering = False

    async def _recover(self, channel: LocalChannel) -> None:
        """Read the log from the position on until the order is live, or the node unsubscribes from the channel."""
        recorded: str | None = None
        while not channel.ordering.is_live and self._channels.get(channel.id) is channel:
            seen, link = channel.last_seen, self._log.link_to(channel.id)
            page = await self._reader.read(channel, channel.ordering.position)
            if page is None:
                continue
            if seen != recorded and (not page.known or order(page.tip) < order(seen)):
                recorded = seen if await self._record_hole(channel, seen) else None
                continue
            self._deliver(channel, page)
            channel.confirmed_by = link

    async def _record_hole(self, channel: LocalChannel, seen: str) -> bool:
        """Record that the log has lost what this node has seen, if that is so. False if Redis is away."""
        try:
            await self._log.record_hole(channel.id, seen)
        except StoreUnavailable:
            await asyncio.sleep(RETRY_SECONDS)
            return False
        return True

    def _deliver(self, channel: LocalChannel, page: LogPage) -> None:
        """Deliver what a page makes ready, and a gap at the place where messages are lost."""
        before = channel.ordering.position
        messages, lost = channel.ordering.add_page(page.rows, more=page.more, known=page.known, tip=page.tip)
        if channel.note_hole(page.last_hole, before):
            self._metrics.lost.inc()
            log.error("channel.history_lost", channel=channel.id, after=page.last_hole.after, tip=page.last_hole.last)
        interrupted, channel.interrupted = channel.interrupted, False
        if interrupted and (page.rows or lost):
            self._metrics.gaps.inc()
        if page.rows:
            self._metrics.refilled.inc(len(page.rows))
            log.info("channel.refilled", channel=channel.id, messages=len(page.rows))
        if not lost or page.version == DELETED:
            channel.deliver(messages)
            return
        self._metrics.lost.inc()
        log.error("channel.history_lost", channel=channel.id, after=before, tip=page.tip)
        # If the log is not known to continue from the position, the gap is before the page; else it is behind it.
        before_gap = len(page.rows) if page.known else 0
        channel.deliver(messages[:before_gap])
        after = messages[before_gap - 1].id if before_gap else before
        channel.deliver_gap(after, messages[before_gap].id if before_gap < len(messages) else page.tip)
        channel.deliver(messages[before_gap:])
