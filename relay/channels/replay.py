"""Replays: a session that joins with a position is sent the log from there on, at the pace at which it reads."""

import asyncio

import structlog

from relay.channels.access import Access
from relay.channels.catch_up import CatchUp
from relay.channels.local_channel import LocalChannel
from relay.channels.log_reader import LogReader
from relay.channels.recipients import Subscriber
from relay.channels.replayed_frames import ReplayedFrames
from relay.model.close_reason import CloseReason
from relay.redis.channel_log import ChannelLog
from relay.sessions.session import Replay, Session

log = structlog.get_logger()

_PAGE_BYTES = 256 * 1024


class Replays:
    """One replay per session at a time, a page at a time. The next page waits until the peer has read this one.

    So a session holds one page and the live messages of one catch-up in memory, however many channels it resumes and
    however much it has missed, and a replay does not make it a slow reader.
    """

    def __init__(self, channel_log: ChannelLog, access: Access) -> None:
        self._reader = LogReader(channel_log, access, page_bytes=_PAGE_BYTES)
        self._frames = ReplayedFrames()
        self._tasks = asyncio.TaskGroup()

    async def serve(self) -> None:
        """Run replays until cancelled."""
        async with self._tasks:
            await asyncio.Event().wait()

    def add(self, channel: LocalChannel, subscriber: Subscriber, catch_up: CatchUp) -> None:
        """Put a replay behind those that the session has already. It begins with `start`."""

        async def replay() -> None:
            await self._catch_up(channel, subscriber, catch_up)

        subscriber.session.replays.append(replay)

    def start(self, session: Session) -> None:
        """Run the replays of a session, if it has any and they are not running."""
        if session.replays and not session.replaying:
            session.replaying = True
            self._tasks.create_task(self._run(session))

    async def _run(self, session: Session) -> None:
        try:
            while session.replays and session.close_reason is None:
                replay: Replay = session.replays.pop(0)
                await replay()
        except ConnectionError:
            session.close(CloseReason.LOST)
        except TimeoutError:
            session.close(CloseReason.SLOW_READER)
        except Exception:
            log.exception("replay.failed", path=session.path_text)
            session.close(CloseReason.LOST)
        finally:
            session.replaying = False

    async def _catch_up(self, channel: LocalChannel, subscriber: Subscriber, catch_up: CatchUp) -> None:
        """Read the log until the subscriber is live, or has left the channel. An outage of Redis is waited out."""
        session, begin, count = subscriber.session, catch_up.position, 0
        while channel.is_catching_up(subscriber, catch_up):
            after = catch_up.begin_page()
            page = await self._reader.read(channel, after)
            if page is None:
                continue
            if not channel.is_catching_up(subscriber, catch_up):
                break
            steps = catch_up.add_page(page.rows, more=page.more, known=page.known, tip=page.tip)
            channel.deliver_catch_up(subscriber, steps, self._frames)
            count += len(steps)
            session.outbox.flush()
            await session.drained()
        log.debug("replay.ended", path=session.path_text, channel=channel.id, after=begin, messages=count)
