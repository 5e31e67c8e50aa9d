"""The log of a channel, its messages in one order, and the list of its subscribers."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, Self

import msgspec

from conclave.model import SessionPath
from relay.model.message import START, Message
from relay.redis import scripts
from relay.redis.batches import IN_FLIGHT, pieces
from relay.redis.keys import Keys
from relay.redis.leases import Holder, holders_in, is_superseded
from relay.redis.scanning import scan, scan_subscribers
from relay.redis.store import Store
from relay.redis.unreadable import Unreadable

_ScriptCall = tuple[tuple[str, str], tuple[str | int, ...]]
"""The keys and the arguments of a script."""

DELETED = -1
"""The version of a deleted channel."""
FENCED = -2
"""The reply to a post whose fence is not that of the channel: the sender may have been removed from the list."""
UNKNOWN_FENCE = "?"
"""The fence of a session of which it is not known that it is listed."""
_DELETED_MS = 24 * 3600 * 1000

KEY_MS = 5 * 60 * 1000
"""The time for which the idempotency key of a message is remembered."""

_REMEMBERED_KEYS = 4096
"""The number of channels whose keys are kept ready for posts."""

GROUP_ROWS = 250
"""The most messages that share one millisecond. A page of v1 history may exceed its 500 rows by this number."""


class Retention(msgspec.Struct, frozen=True):
    """The bounds of a log: age (ms), rows, and the bytes of the messages that share a millisecond."""

    ms: int
    rows: int
    group_bytes: int


class Hole(msgspec.Struct, frozen=True):
    """A place in a log where a failover has lost messages that were delivered: those after `after`, up to `last`."""

    after: str
    last: str


NO_HOLE = Hole(START, START)


class LogPage(msgspec.Struct, frozen=True):
    """A piece of a log, oldest message first. `more` is True if there are further ones in the direction of the request.

    `known` is False if the log is not known to continue from the position that was asked for: it was trimmed, or a
    failover lost writes. A page that is read forwards ends where a failover has lost messages, and the next one is not
    known. `tip` is the id of the channel's last message. `version` is the membership version at the time of the read,
    or DELETED.
    """

    rows: list[Message]
    more: bool
    known: bool
    tip: str
    version: int
    last_hole: Hole = NO_HOLE
    """The last hole of the log, wherever it is; for `page` only."""
    gaps: tuple[str, ...] = ()
    """The positions after which messages are lost, in a page of the newest messages."""

    @classmethod
    def parse(cls, reply: list[Any], unreadable: Unreadable) -> Self:
        """Read the reply of page.lua. Rows that cannot be read are counted, and kept for the sake of the order."""
        known, more, tip, version, flat, hole = reply
        last_hole = Hole(*bytes(hole).decode().split(" ")) if hole else NO_HOLE
        rows = _messages(flat, unreadable)
        return cls(rows, bool(more), bool(known), bytes(tip).decode(), int(version), last_hole)

    @classmethod
    def parse_history(cls, reply: list[Any], unreadable: Unreadable, *, forwards: bool) -> Self:
        """Read the reply of history.lua, which is newest first unless `forwards`. Rows are as those of `parse`."""
        more, known, tip, version, flat, holes = reply
        rows, gaps = _messages(flat, unreadable), tuple(bytes(each).decode() for each in holes)
        tip = bytes(tip).decode()
        return cls(rows if forwards else rows[::-1], bool(more), bool(known), tip, int(version), gaps=gaps)


class LogTip(msgspec.Struct, frozen=True):
    """The end of a log: Redis' time (ms), the id of the last message, and the version (or DELETED)."""

    now: int
    tip: str
    version: int

    @classmethod
    def parse(cls, reply: list[Any]) -> Self:
        """Read the reply of mark.lua."""
        now, tip, version = reply
        return cls(int(now), bytes(tip).decode(), int(version))


class SubscriberListing(msgspec.Struct, frozen=True):
    """The state of a channel when a subscriber was listed.

    `tip` is the id of the last message, `version` the membership version. `recovered` tells whether the log has
    everything after the message that the subscriber received last; False if it named none. `superseded` tells whether a
    later connection had taken the subscriber's path by then: it has to be removed again. `fence` is the channel's: a
    number that grows whenever connections are removed from the list that have not left.
    """

    tip: str
    version: int
    recovered: bool
    superseded: bool
    fence: str


class ChannelLog:
    """The logs and subscribers of all channels. Every method raises StoreUnavailable."""

    def __init__(self, client: Store, keys: Keys, retention: Retention) -> None:
        self._client = client
        self._keys = keys
        self._retention = retention
        self._post_keys = lru_cache(_REMEMBERED_KEYS)(
            lambda channel_id: (keys.log(channel_id), keys.head(channel_id), keys.live(channel_id))
        )

    def append(
        self,
        channel_id: str,
        sender: str,
        payload: bytes,
        *,
        version: int,
        fence: str,
        key: str | None = None,
        trace: str = "",
        seen: str | None = None,
        not_before: int = 0,
    ) -> asyncio.Future[Any]:
        """Append a message of a session, whose path is `sender`, to the log and publish it, in one step.

        `fence` is the channel's when the session was known to be listed; if it is another one, nothing is posted.

        `key` is an idempotency key: if the user posted a message here under it in the last five minutes, nothing is
        posted, and the id of that message is returned, whatever the payload is. `trace` is published with the message.

        `version` is the membership version that the caller has applied. `appended` reads the reply in the future.
        Messages are appended in the order of the calls. Raises, in the future: StoreUnavailable.

        `seen` is a message of the channel that this node has seen, if the log may have lost it since: then that is
        recorded first, as `record_hole` does. `not_before` bounds the time in the message's id (Unix milliseconds).

        When the reply is an id, the message is in the log, and every node with subscribers receives it or finds it
        there.
        """
        keys: tuple[str, ...] = self._post_keys(channel_id)
        if key is not None:
            keys = (*keys, self._keys.sent(channel_id, sender.partition("/")[0], key))
        bounds = self._retention
        args = (sender, payload, bounds.rows, bounds.ms, GROUP_ROWS, bounds.group_bytes, version, KEY_MS, trace)
        if seen is not None or not_before:
            return self._client.run(scripts.POST, keys, *args, fence, seen or "", not_before)
        return self._client.run(scripts.POST, keys, *args, fence)

    def link_to(self, channel_id: str) -> object | None:
        """Return the connection over which a channel's commands go now, to be compared with an earlier one."""
        return self._client.link_to(self._post_keys(channel_id)[0])

    async def record_hole(self, channel_id: str, seen: str) -> None:
        """Record that the log has lost messages, if it does not have a message that this node has seen.

        Every later message has an id after that one. Nodes with subscribers are told to read the log. Nothing is
        recorded for a message that the log has, or that it had before it was trimmed.
        """
        await self._client.run(scripts.HOLE, self._post_keys(channel_id), seen, self._retention.ms)

    async def page(self, channel_id: str, after: str, *, rows: int, size: int, whole_ms: bool = False) -> LogPage:
        """Read what follows message `after`: up to `rows` rows and `size` bytes, one row at least.

        With `whole_ms` the page includes all of the last row's millisecond.
        """
        keys, args = self._page_call(channel_id, after, rows, size, "sealed" if whole_ms else "")
        return LogPage.parse(await self._client.run(scripts.PAGE, keys, *args), self._client.unreadable)

    def _page_call(self, channel_id: str, after: str, rows: int, size: int, whole: str) -> _ScriptCall:
        return self._read_keys(channel_id), (after, rows, size, whole, self._retention.ms)

    async def history(
        self, channel_id: str, after: str | int | None, before: str | None, *, rows: int, size: int
    ) -> LogPage:
        """Read the oldest messages after `after`, or the newest without it; before `before` in both cases.

        `after` is the id of a message, or a time in Unix milliseconds. A page has up to `rows` rows and `size` bytes,
        and one row at least if there is any.
        """
        keys, args = self._history_call(channel_id, after, before, rows, size)
        reply = await self._client.run(scripts.HISTORY, keys, *args)
        return LogPage.parse_history(reply, self._client.unreadable, forwards=after is not None)

    def _history_call(
        self, channel_id: str, after: str | int | None, before: str | None, rows: int, size: int
    ) -> _ScriptCall:
        first = "" if after is None else after
        return self._read_keys(channel_id), (first, before or "", rows, size, self._retention.ms)

    def _read_keys(self, channel_id: str) -> tuple[str, str]:
        return self._keys.log(channel_id), self._keys.head(channel_id)

    async def delivered_tips(self, channel_ids: Sequence[str]) -> list[LogTip]:  # noqa: ARG002 - for a log with a replica
        """Return for each channel the end of the log up to which everything was published to this node.

        Live delivery has reached it a moment later, unless messages were lost without a lost connection. The list is
        shorter, or empty, where that cannot be told or cannot happen.
        """
        return []

    async def add_subscriber(
        self,
        channel_id: str,
        path: SessionPath,
        holder: Holder,
        *,
        supersedes: Sequence[str] = (),
        since: str | None = None,
        seen: str | None = None,
    ) -> SubscriberListing | None:
        """List a subscriber, and remove the earlier connections of its path. None if the channel was deleted.

        For `seen` see `append`.

        The lease is read after the list was written. So a later connection has either been seen here, or sees this one
        in the lease and removes it from the list when it is listed itself.
        """
        (log, head, live), listed = self._post_keys(channel_id), self._keys.subscribers(channel_id)
        args = (holder.connection, f"{holder.node} {path}", since or "", self._retention.ms, seen or "")
        reply, _, lease = await asyncio.gather(
            self._client.run(scripts.ENTER, (head, listed, log, live), *args, *supersedes),
            self._client.call("SADD", self._keys.channels(holder.node), channel_id),
            self._client.call("HGETALL", self._keys.lease(path)),
        )
        if reply is None:
            return None
        tip, version, recovered, fence = reply
        superseded = is_superseded(holders_in(lease, self._client.unreadable), holder.generation)
        return SubscriberListing(bytes(tip).decode(), int(version), bool(recovered), superseded, bytes(fence).decode())

    async def fence(self, channel_id: str, connection: str) -> str | None:
        """Return the fence of a channel in which a connection is listed; None if it is not."""
        keys = (self._keys.head(channel_id), self._keys.subscribers(channel_id))
        fence = await self._client.run(scripts.FENCE, keys, connection)
        return None if fence is None else bytes(fence).decode()

    async def keep_subscribers(self, node: str, subscribers: Mapping[str, Mapping[str, str]]) -> None:
        """List the subscribers of channels (ids) again, in the order of the calls: by channel, each connection's path.

        There are up to some hundred of each. Those of a channel that was deleted are not listed.
        """
        if subscribers:
            await asyncio.gather(
                self._client.call("SADD", self._keys.channels(node), *subscribers),
                *(self._keep_subscribers(node, channel_id, paths) for channel_id, paths in subscribers.items()),
            )

    def _keep_subscribers(self, node: str, channel_id: str, paths: Mapping[str, str]) -> asyncio.Future[Any]:
        keys = (self._keys.head(channel_id), self._keys.subscribers(channel_id))
        rows = (part for connection, path in paths.items() for part in (connection, f"{node} {path}"))
        return self._client.run(scripts.SUBSCRIBERS_KEEP, keys, *rows)

    def remove_subscribers(self, channel_id: str, *connections: str) -> asyncio.Future[Any]:
        """Remove subscribers from the list, in the order of the calls. Raises, in the future: StoreUnavailable."""
        return self._client.call("HDEL", self._keys.subscribers(channel_id), *connections)

    async def subscribers(self, channel_id: str) -> list[tuple[str, str]]:
        """Return (node, path) of every listed subscriber, those of dead nodes included."""
        values = await self._client.call("HVALS", self._keys.subscribers(channel_id))
        return self._client.unreadable.read_all("subscribers", _subscriber, values)

    async def version(self, channel_id: str) -> int:
        """Return the membership version of a channel that was announced last, or DELETED."""
        version, gone = await self._client.call("HMGET", self._keys.head(channel_id), "version", "gone")
        return DELETED if gone else int(version or 0)

    async def publish_version(self, channel_id: str, version: int) -> None:
        """Have every later message carry a version, and every node with subscribers apply it now."""
        keys = (self._keys.head(channel_id), self._keys.live(channel_id))
        await self._client.run(scripts.ANNOUNCE, keys, version)

    async def delete(self, channel_id: str) -> None:
        """Delete the log of a channel, and have every node with subscribers remove them."""
        keys = (self._keys.head(channel_id), self._keys.live(channel_id))
        more = (self._keys.log(channel_id), self._keys.subscribers(channel_id))
        await self._client.run(scripts.ERASE, (*keys, *more), _DELETED_MS)

    async def node_subscribers(self, node: str) -> AsyncIterator[dict[str, list[str]]]:
        """Yield the connections that a node has listed in its channels, by channel, in pieces."""
        async for channel_ids in scan(self._client, "SSCAN", self._keys.channels(node)):
            for piece in pieces((bytes(each).decode() for each in channel_ids), IN_FLIGHT):
                found = await scan_subscribers(self._client, self._keys, scripts.SUBSCRIBERS_OF, node, piece)
                yield {channel_id: list(connections) for channel_id, connections in found.items()}

    async def remove_node_channels(self, node: str, channel_ids: Sequence[str]) -> None:
        """Record that a node has no subscribers in these channels any more."""
        await self._client.call("SREM", self._keys.channels(node), *channel_ids)


def appended(reply: Any) -> str | int | None:
    """Read the reply of post.lua.

    Returns the id of the message. If nothing was posted: the present version, which is later than the caller's;
    FENCED; None if the channel was deleted.
    """
    return bytes(reply).decode() if isinstance(reply, bytes) else reply


def _subscriber(value: bytes) -> tuple[str, str]:
    node, path = bytes(value).partition(b"\0")[0].decode().split(" ", 1)  # names may contain spaces
    return node, path


def _messages(flat: list[bytes], unreadable: Unreadable) -> list[Message]:
    messages = [
        Message(flat[i].decode(), _ms(flat[i]), "", _sender(flat[i + 1]), bytes(flat[i + 2]))
        for i in range(0, len(flat), 3)
    ]
    for message in messages:
        if not message.is_readable:
            unreadable.count("log")
    return messages


def _sender(value: bytes) -> str:
    """Return a path, or '' if it cannot be read."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return ""


def parse_live(data: bytes) -> Message | None:
    """Read a live message as post.lua publishes it. None if it is of a later format: its first byte is no digit."""
    try:
        message_id, previous, version, sender, payload = data.split(b"\0", 4)
        trace = b""
        if b" " in version:
            version, _, trace = version.partition(b" ")
        return Message(
            message_id.decode(),
            _ms(message_id),
            previous.decode(),
            sender.decode(),
            payload,
            int(version),
            trace.decode(),
        )
    except ValueError:
        return None


def _ms(message_id: bytes) -> int:
    return int(message_id.partition(b"-")[0])
