"""Pages of channels' logs, each with the membership version at which it was read."""

import asyncio

from relay.channels.access import Access
from relay.channels.local_channel import LocalChannel
from relay.model.errors import StoreUnavailable
from relay.redis.channel_log import ChannelLog, LogPage

CONCURRENT_PAGES = 16
"""The number of pages that one reader requests at a time."""

_PAGE_ROWS = 500
_RETRY_SECONDS = 0.2


class LogReader:
    """Reads pages for delivery to sessions, of a bounded number of channels at a time."""

    def __init__(self, channel_log: ChannelLog, access: Access, *, page_bytes: int) -> None:
        self._log = channel_log
        self._access = access
        self._page_bytes = page_bytes
        self._slots = asyncio.Semaphore(CONCURRENT_PAGES)

    async def read(self, channel: LocalChannel, after: str) -> LogPage | None:
        """Read a page of what follows message `after`, one row at least if there is any.

        When this returns, the version at which the page was read is applied. None if Redis is away: some time has
        passed then, and the caller checks whether it still needs the page.
        """
        try:
            async with self._slots:
                page = await self._log.page(channel.id, after, rows=_PAGE_ROWS, size=self._page_bytes)
            await self._access.apply(channel, page.version)
        except StoreUnavailable:
            await asyncio.sleep(_RETRY_SECONDS)
            return None
        return page
