"""Pages of logs for the sessions of a node: bounded in number, and read once for those who ask for the same."""

import asyncio
from typing import Any

from relay.channels.access import Access
from relay.channels.local_channel import LocalChannel
from relay.channels.log_reader import CONCURRENT_PAGES, LogReader
from relay.model.errors import StoreUnavailable
from relay.redis.channel_log import LogPage
from relay.sessions.outbox import Flusher, FlushPolicy
from tests.support.waiting import wait_until

PAGE = LogPage([], more=False, known=True, tip="9-0", version=0)


class Log:
    """A log whose pages come when they are released."""

    def __init__(self) -> None:
        self.requested: list[str] = []
        self.released = asyncio.Event()
        self.fails = False

    async def page(self, channel_id: str, after: str, **_: Any) -> LogPage:
        self.requested.append(f"{channel_id} {after}")
        await self.released.wait()
        if self.fails:
            raise StoreUnavailable("away")
        return PAGE


def reader_of(log: Log) -> tuple[LogReader, LocalChannel]:
    class Applied(Access):
        def __init__(self) -> None:
            pass

        async def apply(self, channel: LocalChannel, version: int) -> None:
            pass

    flusher = Flusher(lambda _: None, FlushPolicy(0))
    channel = LocalChannel("c", "ops", 0, flusher, lambda *_: None)
    return LogReader(log, Applied(), page_bytes=1000), channel  # type: ignore[arg-type]


async def test_sessions_that_missed_the_same_share_a_page() -> None:
    """Two thousand sessions come back to a node at once."""
    log = Log()
    reader, channel = reader_of(log)
    reading = [asyncio.create_task(reader.read(channel, f"{n % 4}-0")) for n in range(2000)]
    await wait_until(lambda: log.requested, what="pages are requested")
    assert sorted(log.requested) == [f"c {n}-0" for n in range(4)]
    log.released.set()
    assert await asyncio.gather(*reading) == [PAGE] * 2000


async def test_a_page_that_was_requested_earlier_is_not_shared() -> None:
    """It may lack what the caller has been told to find."""
    log = Log()
    reader, channel = reader_of(log)
    first = asyncio.create_task(reader.read(channel, "1-0"))
    await wait_until(lambda: log.requested, what="the page is requested")
    second = asyncio.create_task(reader.read(channel, "1-0"))
    await wait_until(lambda: len(log.requested) == 2, what="another one is requested")
    log.released.set()
    assert [await first, await second] == [PAGE, PAGE]


async def test_the_pages_that_are_requested_at_a_time_are_bounded() -> None:
    log = Log()
    reader, channel = reader_of(log)
    reading = [asyncio.create_task(reader.read(channel, f"{n}-0")) for n in range(3 * CONCURRENT_PAGES)]
    await wait_until(lambda: len(log.requested) == CONCURRENT_PAGES, what="the first pages are requested")
    log.released.set()
    assert await asyncio.gather(*reading) == [PAGE] * 3 * CONCURRENT_PAGES


async def test_an_outage_and_a_caller_that_leaves_concern_nobody_else() -> None:
    """None tells that some time has passed; the next call reads again."""
    log = Log()
    log.fails = True
    reader, channel = reader_of(log)
    reading = [asyncio.create_task(reader.read(channel, "1-0")) for _ in range(3)]
    await wait_until(lambda: log.requested, what="the page is requested")
    reading[0].cancel()
    log.released.set()
    assert await asyncio.gather(*reading[1:]) == [None, None]
    log.fails = False
    assert await reader.read(channel, "1-0") == PAGE


async def test_a_channel_that_was_left_and_joined_again_reads_its_own_page() -> None:
    """The version at which a page was read is applied to the object that has the subscribers now."""
    log = Log()
    reader, former = reader_of(log)
    _, present = reader_of(log)
    reading = [asyncio.create_task(reader.read(channel, "1-0")) for channel in (former, present)]
    await wait_until(lambda: len(log.requested) == 2, what="both are requested")
    log.released.set()
    assert await asyncio.gather(*reading) == [PAGE, PAGE]
