"""Pages of channels' logs, each with the membership version at which it was read."""

import asyncio

from relay.channels.access import Access
from relay.channels.local_channel import LocalChannel
from relay.model.errors import StoreUnavailable
from relay.redis.channel_log import ChannelLog, LogPage

CONCURRENT_PAGES = 16
"""The number of pages that one reader requests at a time."""

_PAGE_ROWS = 500
RETRY_SECONDS = 0.2
"""The time after which what Redis did not answer is tried again."""


class LogReader:
    """Reads pages for delivery to sessions, of a bounded number at a time.

    Many sessions that come back have missed the same. A page that several have asked for before it is requested from
    Redis is read once for all of them.
    """

    def __init__(self, channel_log: ChannelLog, access: Access, *, page_bytes: int) -> None:
        self._log = channel_log
        self._access = access
        self._page_bytes = page_bytes
        self._slots = asyncio.Semaphore(CONCURRENT_PAGES)
        self._queued: dict[tuple[LocalChannel, str], asyncio.Task[LogPage | None]] = {}
        """Pages that are not requested yet, by channel and position. A later caller needs a later page."""

    async def read(self, channel: LocalChannel, after: str) -> LogPage | None:
        """Read a page of what follows message `after`, one row at least if there is any.

        The page is as the log is after the call. When this returns, the version at which the page was read is applied.
        None if Redis is away: some time has passed then, and the caller checks whether it still needs the page.
        """
        key = channel, after
        reading = self._queued.get(key)
        if reading is None:
            reading = self._queued[key] = asyncio.create_task(self._read(channel, after))
        return await asyncio.shield(reading)

    async def _read(self, channel: LocalChannel, after: str) -> LogPage | None:
        try:
            async with self._slots:
                del self._queued[channel, after]
                page = await self._log.page(channel.id, after, rows=_PAGE_ROWS, size=self._page_bytes)
            await self._access.apply(channel, page.version)
        except StoreUnavailable:
            await asyncio.sleep(RETRY_SECONDS)
            return None
        return page
