"""Announcements: what the directory has decided is told to the cluster before the operation is acknowledged.

An operation and its pending announcement are written in one step in the directory. The announcement itself goes to
other hash slots, in a second step; the node that carried out the operation makes it and then removes the entry. If that
node dies in between, or loses Redis, the entry stays and the janitor of any node makes the announcement. Announcing
twice does no harm.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from relay.redis.batches import pieces
from relay.redis.channel_log import DELETED, ChannelLog
from relay.redis.directory import Directory
from relay.redis.inbox import Inbox
from relay.redis.node_registry import NodeRegistry
from relay.redis.signals import Revoke
from relay.redis.unreadable import Unreadable

_REVOCATIONS = frozenset({"revoked", "user_removed"})
_AT_ONCE = 64
"""The announcements that are under way at the same time: the removal of a user may have thousands."""


class Announcements:
    """The pending announcements of the cluster."""

    def __init__(
        self,
        *,
        directory: Directory,
        channel_log: ChannelLog,
        inbox: Inbox,
        registry: NodeRegistry,
        unreadable: Unreadable,
    ) -> None:
        self._directory = directory
        self._log = channel_log
        self._inbox = inbox
        self._registry = registry
        self._unreadable = unreadable
        self._seen: dict[str, str] = {}
        """The announcements that were pending at the last look."""

    async def publish_pending(self) -> None:
        """Make the announcements that were pending at the last call, too: their nodes have left them.

        Raises: StoreUnavailable, and the rest is made by the next call.
        """
        seen, self._seen = self._seen, await self._directory.pending_announcements()
        await self.publish({subject: text for subject, text in self._seen.items() if seen.get(subject) == text})

    async def publish(self, announcements: Mapping[str, str]) -> None:
        """Make announcements, in no particular order; then they are removed from those that are pending.

        No message that is posted after this returns reaches a session that lost its channel. Raises: StoreUnavailable,
        and what was not removed is announced again.
        """
        for piece in pieces(announcements.items(), _AT_ONCE):
            made = await asyncio.gather(*(self._publish(subject, *text.split(" ")) for subject, text in piece))
            done = [row for row, is_made in zip(piece, made, strict=True) if is_made]
            if done:
                self._directory.remove_announcements(done).add_done_callback(_ignore_failure)

    async def _publish(self, subject: str, kind: str, *arguments: str) -> bool:
        """Make an announcement. False for one of a later format: it stays for a node that can read it."""
        version = _version(kind, arguments)
        if version == DELETED:
            await self._log.delete(subject)
        elif version is not None:
            await self._log.publish_version(subject, version)
        elif kind in _REVOCATIONS:
            signal = Revoke(subject.removeprefix("key:"), kind)
            await self._inbox.broadcast(await self._registry.all_nodes(), signal)
        else:
            self._unreadable.count("announcement")
            return False
        return True


def _ignore_failure(removal: "asyncio.Future[Any]") -> None:
    """Leave it to a janitor to repeat an announcement that Redis did not remove: twice does no harm."""
    if not removal.cancelled():
        removal.exception()


def announced_version(announcements: Mapping[str, str], channel_id: str) -> int | None:
    """Return the membership version of a channel that is announced, DELETED included; None if none is."""
    kind, *arguments = announcements.get(channel_id, "").split(" ")
    return _version(kind, arguments)


def _version(kind: str, arguments: Sequence[str]) -> int | None:
    """Return the membership version that an announcement begins, DELETED included; None if it begins none."""
    if kind == "changed" and arguments and arguments[0].isdecimal():
        return int(arguments[0])
    return DELETED if kind == "deleted" else None
