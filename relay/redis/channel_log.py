"""A channel's log and its subscribers: what was said, in one order, and who listens."""

import asyncio
from collections.abc import Sequence
from typing import Any, Self

import msgspec

from conclave.model import SessionPath
from relay.model.message import Message
from relay.observability import tracing
from relay.redis import scripts
from relay.redis.client import RedisClient
from relay.redis.keys import Keys

_Call = tuple[tuple[str, str], tuple[str | int, ...]]
"""The keys and the arguments of a script."""

DELETED = -1
"""The version of a deleted channel."""
_DELETED_MS = 24 * 3600 * 1000

KEY_MS = 5 * 60 * 1000
"""How long a sender's own key of a message is remembered."""

GROUP_ROWS = 250
"""Most messages that share one millisecond: by so many rows a page of v1 history may exceed its 500."""


class Retention(msgspec.Struct, frozen=True):
    """How long and how much a channel's log keeps, and how much may share a millisecond."""

    ms: int
    rows: int
    group_bytes: int


class LogPage(msgspec.Struct, frozen=True):
    """A piece of a log, oldest first.

    `known` is False if the log is not known to continue from where the page was asked to start: it was trimmed, or a
    failover lost writes. `tip` is the id of the channel's last message. `version` is that of who may hear the
    channel when it was read, or DELETED.
    """

    rows: list[Message]
    more: bool
    known: bool
    tip: str
    version: int

    @classmethod
    def parse(cls, reply: list[Any]) -> Self:
        """Read what the page script answers."""
        known, more, tip, version, flat = reply
        return cls(_messages(flat), bool(more), bool(known), bytes(tip).decode(), int(version))


class HistoryPage(msgspec.Struct, frozen=True):
    """What a request for history gets: messages, oldest first, and whether there are more in the direction asked for.

    `known`, `tip` and `version` are as in LogPage.
    """

    rows: list[Message]
    more: bool
    known: bool
    tip: str
    version: int

    @classmethod
    def parse(cls, reply: list[Any], *, forwards: bool) -> Self:
        """Read what the history script answers: newest first unless `forwards`."""
        more, known, tip, version, flat = reply
        rows = _messages(flat)
        return cls(rows if forwards else rows[::-1], bool(more), bool(known), bytes(tip).decode(), int(version))


class LogTip(msgspec.Struct, frozen=True):
    """Up to where a channel's log goes, at which version of who may hear it (or DELETED), at which time (ms)."""

    now: int
    tip: str
    version: int

    @classmethod
    def parse(cls, reply: list[Any]) -> Self:
        """Read what the mark script answers."""
        now, tip, version = reply
        return cls(int(now), bytes(tip).decode(), int(version))


class ChannelLog:
    """Append, read, subscribe. Every method raises StoreUnavailable."""

    def __init__(self, client: RedisClient, keys: Keys, retention: Retention) -> None:
        self._client = client
        self._keys = keys
        self._retention = retention

    async def append(
        self, channel_id: str, sender: SessionPath, payload: bytes, *, version: int, key: str | None = None
    ) -> str | int | None:
        """Keep a message and publish it, in one step.

        With a `key`, a message that its user has posted here under the same key in the last five minutes is not posted
        again: its id is returned, whatever is in this one.

        `version` is the version of who may hear the channel that the caller has applied. Returns the message's id; or
        the present version, if that is a later one and nothing was kept; or None if the channel was deleted.

        When it returns an id the message is in the log, and every node with subscribers gets it or finds it there.
        """
        keys = [self._keys.log(channel_id), self._keys.head(channel_id), self._keys.live(channel_id)]
        if key is not None:
            keys.append(self._keys.sent(channel_id, sender.user, key))
        kept = self._retention
        with tracing.post(channel_id) as trace:
            args = (str(sender), payload, kept.rows, kept.ms, GROUP_ROWS, kept.group_bytes, version, KEY_MS, trace)
            reply = await self._client.run(scripts.POST, keys, *args)
        return bytes(reply).decode() if isinstance(reply, bytes) else reply

    async def page(self, channel_id: str, after: str, *, rows: int, size: int, whole_ms: bool = False) -> LogPage:
        """Read what follows message `after`: up to `rows` rows and `size` bytes, one row at least.

        With `whole_ms` the page goes on to the end of its last row's millisecond.
        """
        keys, args = self._page_call(channel_id, after, rows, size, "sealed" if whole_ms else "")
        return LogPage.parse(await self._client.run(scripts.PAGE, keys, *args))

    def _page_call(self, channel_id: str, after: str, rows: int, size: int, whole: str) -> _Call:
        return self._read_keys(channel_id), (after, rows, size, whole, self._retention.ms)

    async def history(
        self, channel_id: str, after: str | int | None, before: str | None, *, rows: int, size: int
    ) -> HistoryPage:
        """Read the oldest messages behind `after`, or the newest without it; before `before` in both cases.

        `after` is a message's id, or Unix milliseconds: then what is later than that.

        Up to `rows` rows and `size` bytes, one row at least if there is any.
        """
        keys, args = self._history_call(channel_id, after, before, rows, size)
        return HistoryPage.parse(await self._client.run(scripts.HISTORY, keys, *args), forwards=after is not None)

    def _history_call(
        self, channel_id: str, after: str | int | None, before: str | None, rows: int, size: int
    ) -> _Call:
        first = "" if after is None else after
        return self._read_keys(channel_id), (first, before or "", rows, size, self._retention.ms)

    def _read_keys(self, channel_id: str) -> tuple[str, str]:
        return self._keys.log(channel_id), self._keys.head(channel_id)

    async def delivered_tips(self, channel_ids: Sequence[str]) -> list[LogTip]:  # noqa: ARG002 - for a log with a replica
        """Return up to where live delivery must have come, channel by channel, once it has been quiet for a moment.

        The list is short, or empty, where that cannot be told, or where nothing can be lost unless the subscriber's
        connection is.
        """
        return []

    async def add_subscriber(
        self, channel_id: str, path: SessionPath, node: str, connection: str, *, since: str | None = None
    ) -> tuple[str, int, bool] | None:
        """Note a subscriber.

        Returns the channel's last message's id, its version, and whether its log holds all that followed message
        `since`; None if the channel was deleted.
        """
        keys = (self._keys.head(channel_id), self._keys.subscribers(channel_id), self._keys.log(channel_id))
        reply, _ = await asyncio.gather(
            self._client.run(scripts.ENTER, keys, connection, f"{node} {path}", since or "", self._retention.ms),
            self._client.call("SADD", self._keys.channels(node), channel_id),
        )
        return None if reply is None else (bytes(reply[0]).decode(), int(reply[1]), bool(reply[2]))

    async def remove_subscriber(self, channel_id: str, connection: str) -> None:
        """Forget a subscriber."""
        await self._client.call("HDEL", self._keys.subscribers(channel_id), connection)

    async def subscribers(self, channel_id: str) -> list[tuple[str, str]]:
        """Return (node, path) of every noted subscriber, those of dead nodes included."""
        values = await self._client.call("HVALS", self._keys.subscribers(channel_id))
        pairs = (bytes(value).decode().split(" ", 1) for value in values)
        return [(node, path) for node, path in pairs]

    async def version(self, channel_id: str) -> int:
        """Return the version of who may hear a channel that was announced last, or DELETED."""
        version, gone = await self._client.call("HMGET", self._keys.head(channel_id), "version", "gone")
        return DELETED if gone else int(version or 0)

    async def publish_version(self, channel_id: str, version: int) -> None:
        """Have every later message carry a version, and every node with subscribers look at it now."""
        keys = (self._keys.head(channel_id), self._keys.live(channel_id))
        await self._client.run(scripts.ANNOUNCE, keys, version)

    async def delete(self, channel_id: str) -> None:
        """End a deleted channel, with all that was said in it."""
        keys = (self._keys.head(channel_id), self._keys.live(channel_id))
        more = (self._keys.log(channel_id), self._keys.subscribers(channel_id))
        await self._client.run(scripts.ERASE, (*keys, *more), _DELETED_MS)

    async def add_node_channel(self, node: str, channel_id: str) -> None:
        """Note that a node has subscribers in a channel."""
        await self._client.call("SADD", self._keys.channels(node), channel_id)

    async def remove_node_channel(self, node: str, channel_id: str) -> None:
        """Note that a node has no subscribers in a channel any more."""
        await self._client.call("SREM", self._keys.channels(node), channel_id)


def _messages(flat: list[bytes]) -> list[Message]:
    return [Message(flat[i].decode(), "", flat[i + 1].decode(), bytes(flat[i + 2])) for i in range(0, len(flat), 3)]


def parse_live(data: bytes) -> Message:
    """Read what the post script publishes."""
    message_id, previous, version, sender, payload = data.split(b"\0", 4)
    version, _, trace = version.partition(b" ")
    return Message(message_id.decode(), previous.decode(), sender.decode(), payload, int(version), trace.decode())
