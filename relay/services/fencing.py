"""Fencing: a session that was superseded, revoked, or evicted with its node does nothing any more in its channels.

A session may post to a channel while its connection is listed there, which the script of a post checks. A later login
on the same path removes the earlier connections from each channel that it joins, and the eviction of a node those of
all its sessions (docs/decisions/0014).
"""

from relay.model.close_reason import CloseReason, Ended
from relay.model.errors import StoreUnavailable
from relay.redis.channel_log import ChannelLog
from relay.redis.leases import Holder, Leases
from relay.redis.node_registry import NodeRegistry
from relay.sessions.session import Session

_REASONS = {"superseded": CloseReason.SUPERSEDED, "revoked": CloseReason.REVOKED}


class Fencing:
    """Decides what becomes of a session whose connection is not listed in a channel that it has joined."""

    def __init__(self, *, channel_log: ChannelLog, leases: Leases, registry: NodeRegistry) -> None:
        self._log = channel_log
        self._leases = leases
        self._registry = registry

    async def relist(self, session: Session, channel_id: str) -> None:
        """List a session again that still holds its path: a failover has lost its listing.

        Raises:
            Ended: if the path was taken or the key revoked; the session is closed.
            StoreUnavailable: also while the node is evicted; the listings follow when it has joined the cluster again.
        """
        holder = Holder(session.connection, self._registry.node, session.generation)
        if await self._registry.is_evicted():
            raise StoreUnavailable("the node was evicted, and has not joined the cluster again")
        state = await self._leases.reassert(session.path, session.pubkey, holder)
        if state != "kept":
            raise _ended(session, _REASONS[state])
        session.relistings += 1
        listing = await self._log.add_subscriber(channel_id, session.path, holder)
        if listing is not None and listing.superseded:
            raise _ended(session, CloseReason.SUPERSEDED)
        if self._registry.node != holder.node:
            raise StoreUnavailable("the node joined the cluster again under a new name")


def _ended(session: Session, reason: CloseReason) -> Ended:
    session.close(reason)
    return Ended(session.close_reason or reason)
