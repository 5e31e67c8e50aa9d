"""Telling the cluster what the directory has decided, before the decision is acknowledged.

An operation and the note of what has to be announced are one step in the directory. Announcing is a second one, in
other hash slots; whoever made the change does it and strikes the note out. A node that dies in between, or loses Redis,
leaves the note, and the next heartbeat of any node makes up for it. Announcing twice does no harm.
"""

import structlog

from relay.redis.channel_log import ChannelLog
from relay.redis.directory import Directory
from relay.redis.inbox import Inbox, Revoke
from relay.redis.node_registry import NodeRegistry

log = structlog.get_logger()


class Announcements:
    """What is due to be announced."""

    def __init__(self, *, directory: Directory, channel_log: ChannelLog, inbox: Inbox, registry: NodeRegistry) -> None:
        self._directory = directory
        self._log = channel_log
        self._inbox = inbox
        self._registry = registry

    async def publish_pending(self) -> None:
        """Announce all that is due, from whatever node.

        When it returns, no message that is posted later reaches a session that lost the right to it. Raises:
        StoreUnavailable.
        """
        for field, what in (await self._directory.pending_announcements()).items():
            await self._announce(field, *what.split(" "))
            await self._directory.remove_announcement(field, what)

    async def _announce(self, field: str, what: str, *more: str) -> None:
        match what:
            case "changed":
                await self._log.publish_version(field, int(more[0]))
            case "deleted":
                await self._log.delete(field)
            case "revoked" | "user_removed":
                signal = Revoke(field.removeprefix("key:"), what)
                await self._inbox.broadcast(await self._registry.all_nodes(), signal)
            case _:
                log.error("due.unknown", what=what)
