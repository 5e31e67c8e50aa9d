"""The logs of channels, read from the replica wherever its page is as good as the primary's."""

import asyncio
from collections.abc import Sequence

import msgspec
from typing_extensions import override

from relay.model.message import order
from relay.redis import scripts
from relay.redis.channel_log import DELETED, ChannelLog, LogPage, LogTip, Retention
from relay.redis.keys import Keys
from relay.redis.read_replica import ReadReplica
from relay.redis.store import Store

_CONCURRENT_TIPS = 200


class ReplicaLog(ChannelLog):
    """Reads a page from the replica and, at the same time, the end of the log from the primary.

    The log of a replica is a prefix of the primary's. So its page is used if the replica has more after it already, or
    if it leads to the end of the primary's log at the time of the request. In every other case the page is read from
    the primary, also if the replica does not know the position, which does not prove that anything is lost. The version
    is the later one of both: a message in the page may have been posted after the primary replied.
    """

    def __init__(self, client: Store, keys: Keys, retention: Retention, replica: ReadReplica) -> None:
        super().__init__(client, keys, retention)
        self._replica = replica

    @override
    async def page(self, channel_id: str, after: str, *, rows: int, size: int, whole_ms: bool = False) -> LogPage:
        if self._replica.is_used:
            keys, args = self._page_call(channel_id, after, rows, size, "whole" if whole_ms else "")
            primary, reply = await asyncio.gather(
                self._primary_tip(channel_id), self._replica.run(scripts.PAGE, keys, *args)
            )
            page = None if reply is None else LogPage.parse(reply, self._client.unreadable)
            if page is not None and page.known and (page.more or _is_complete(page, primary, whole_ms=whole_ms)):
                tip = max(page.tip, primary.tip, key=order)
                return msgspec.structs.replace(page, tip=tip, version=_later(page.version, primary.version))
        return await super().page(channel_id, after, rows=rows, size=size, whole_ms=whole_ms)

    @override
    async def history(
        self, channel_id: str, after: str | int | None, before: str | None, *, rows: int, size: int
    ) -> LogPage:
        if self._replica.is_used:
            keys, args = self._history_call(channel_id, after, before, rows, size)
            primary, reply = await asyncio.gather(
                self._primary_tip(channel_id), self._replica.run(scripts.HISTORY, keys, *args)
            )
            unreadable, forwards = self._client.unreadable, after is not None
            page = None if reply is None else LogPage.parse_history(reply, unreadable, forwards=forwards)
            if page is not None and page.known:
                goes_on = forwards and page.more
                end = primary.tip if before is None else min(primary.tip, before, key=order)
                if goes_on or order(page.tip) >= order(end):
                    return msgspec.structs.replace(page, version=_later(page.version, primary.version))
        return await super().history(channel_id, after, before, rows=rows, size=size)

    @override
    async def delivered_tips(self, channel_ids: Sequence[str]) -> list[LogTip]:
        tips: list[LogTip] = []
        for start in range(0, len(channel_ids), _CONCURRENT_TIPS):
            keys = [self._mark_keys(each) for each in channel_ids[start : start + _CONCURRENT_TIPS]]
            replies = await asyncio.gather(*(self._replica.run(scripts.MARK, each) for each in keys))
            if None in replies:
                break
            tips += [LogTip.parse(reply) for reply in replies]
        return tips

    async def _primary_tip(self, channel_id: str) -> LogTip:
        return LogTip.parse(await self._client.run(scripts.MARK, self._mark_keys(channel_id)))

    def _mark_keys(self, channel_id: str) -> tuple[str, str]:
        return self._keys.head(channel_id), self._keys.log(channel_id)


def _is_complete(page: LogPage, primary: LogTip, *, whole_ms: bool) -> bool:
    """Tell whether a page to the end of the replica's log reaches the end of the log, its last millisecond included."""
    if order(page.tip) < order(primary.tip):
        return False
    return not whole_ms or not page.rows or page.rows[-1].ts_ms < primary.now


def _later(one: int, other: int) -> int:
    return DELETED if DELETED in (one, other) else max(one, other)
