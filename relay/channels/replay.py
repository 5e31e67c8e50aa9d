"""Sessions that come back: what they missed is read from the log, at the pace at which they read it."""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from relay.channels.catch_up import CatchUp
from relay.channels.local_channel import LocalChannel, Subscriber
from relay.model.close_reason import CloseReason
from relay.model.errors import StoreUnavailable
from relay.redis.channel_log import ChannelLog
from relay.sessions.session import Replay, Session

log = structlog.get_logger()

_PAGE_ROWS, _PAGE_BYTES = 500, 256 * 1024
_PAGES_AT_ONCE = 16
_RETRY_SECONDS = 0.2


class Replays:
    """One replay per session at a time, each a page at a time; the next page waits until the peer has read this one.

    So a session holds one page and one catch-up's live messages in memory, however many channels it resumes and however
    much it has missed, and it is no slow reader for that.
    """

    def __init__(self, channel_log: ChannelLog, review: Callable[[LocalChannel, int], Awaitable[None]]) -> None:
        """`review(room, version)` takes a channel from those who may not hear it at that version."""
        self._log = channel_log
        self._review = review
        self._pages = asyncio.Semaphore(_PAGES_AT_ONCE)
        self._tasks = asyncio.TaskGroup()

    async def serve(self) -> None:
        """Carry replays until cancelled."""
        async with self._tasks:
            await asyncio.Event().wait()

    def prepare(self, room: LocalChannel, listener: Subscriber, catch_up: CatchUp) -> None:
        """Put a replay behind those that the session has already; it begins with `resume`."""

        async def replay() -> None:
            await self._catch_up(room, listener, catch_up)

        listener.session.replays.append(replay)

    def resume(self, session: Session) -> None:
        """Begin with the session's replays, if it has any and is not at it already."""
        if session.replays and not session.replaying:
            session.replaying = True
            self._tasks.create_task(self._run(session))

    async def _run(self, session: Session) -> None:
        try:
            while session.replays and session.close_reason is None:
                replay: Replay = session.replays.popleft()
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

    async def _catch_up(self, room: LocalChannel, listener: Subscriber, catch_up: CatchUp) -> None:
        """Read the log until the listener is live, has lost the channel, or is gone. Redis' outages are waited out.

        A page is read at a version of who may hear the channel, and is handed out after that version was applied.
        """
        session, begin = listener.session, catch_up.position
        count = 0
        while room.is_catching_up(listener, catch_up):
            after = catch_up.ask()
            try:
                async with self._pages:
                    page = await self._log.page(room.id, after, rows=_PAGE_ROWS, size=_PAGE_BYTES)
                await self._review(room, page.version)
            except StoreUnavailable:
                await asyncio.sleep(_RETRY_SECONDS)
                continue
            if not room.is_catching_up(listener, catch_up):
                break
            steps = catch_up.page(page.rows, more=page.more, known=page.known, tip=page.tip)
            room.catch_up(listener, steps)
            count += len(steps)
            session.outbox.flush()
            await session.drained()
        log.debug("replay.ended", path=session.path_text, channel=room.id, after=begin, messages=count)
