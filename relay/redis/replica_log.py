"""Channels' logs, read from a near replica wherever that is as good as the primary."""

import asyncio
from collections.abc import Sequence

import msgspec
from typing_extensions import override

from relay.model.message import order
from relay.redis import scripts
from relay.redis.channel_log import DELETED, ChannelLog, HistoryPage, LogPage, LogTip, Retention
from relay.redis.client import RedisClient
from relay.redis.keys import Keys
from relay.redis.read_replica import ReadReplica

_AT_ONCE = 200


class ReplicaLog(ChannelLog):
    """Reads pages from the replica, and at the same time, from the primary, up to where the log goes.

    A replica holds a beginning of the primary's log. So its page is taken if there is more behind it there already, or
    if it leads to where the primary's log ended when the page was asked for. In every other case, and if the replica
    does not know the position, which is no proof that anything is lost, the page is read from the primary. Its version
    is the later one of both: a message in it may have come after the primary was asked.
    """

    def __init__(self, client: RedisClient, keys: Keys, retention: Retention, near: ReadReplica) -> None:
        super().__init__(client, keys, retention)
        self._near = near

    @override
    async def page(self, channel_id: str, after: str, *, rows: int, size: int, whole_ms: bool = False) -> LogPage:
        if self._near.is_used:
            keys, args = self._page_call(channel_id, after, rows, size, "whole" if whole_ms else "")
            mark, reply = await asyncio.gather(self._mark(channel_id), self._near.ask(scripts.PAGE, keys, *args))
            page = None if reply is None else LogPage.parse(reply)
            if page is not None and page.known and (page.more or _is_complete(page, mark, whole_ms=whole_ms)):
                return msgspec.structs.replace(page, version=_later(page.version, mark.version))
        return await super().page(channel_id, after, rows=rows, size=size, whole_ms=whole_ms)

    @override
    async def history(
        self, channel_id: str, after: str | int | None, before: str | None, *, rows: int, size: int
    ) -> HistoryPage:
        if self._near.is_used:
            keys, args = self._history_call(channel_id, after, before, rows, size)
            mark, reply = await asyncio.gather(self._mark(channel_id), self._near.ask(scripts.HISTORY, keys, *args))
            piece = None if reply is None else HistoryPage.parse(reply, forwards=after is not None)
            if piece is not None and piece.known:
                goes_on = after is not None and piece.more
                due = mark.tip if before is None else min(mark.tip, before, key=order)
                if goes_on or order(piece.tip) >= order(due):
                    return msgspec.structs.replace(piece, version=_later(piece.version, mark.version))
        return await super().history(channel_id, after, before, rows=rows, size=size)

    @override
    async def delivered_tips(self, channel_ids: Sequence[str]) -> list[LogTip]:
        marks: list[LogTip] = []
        for start in range(0, len(channel_ids), _AT_ONCE):
            keys = [self._keys.head(each) for each in channel_ids[start : start + _AT_ONCE]]
            replies = await asyncio.gather(*(self._near.ask(scripts.MARK, [key]) for key in keys))
            if None in replies:
                break
            marks += [LogTip.parse(reply) for reply in replies]
        return marks

    async def _mark(self, channel_id: str) -> LogTip:
        return LogTip.parse(await self._client.run(scripts.MARK, [self._keys.head(channel_id)]))


def _is_complete(page: LogPage, mark: LogTip, *, whole_ms: bool) -> bool:
    """Whether a page to the end of the replica's log is one to the end of the log, its last millisecond included."""
    if order(page.tip) < order(mark.tip):
        return False
    return not whole_ms or not page.rows or page.rows[-1].ts_ms < mark.now


def _later(one: int, other: int) -> int:
    return DELETED if DELETED in (one, other) else max(one, other)
