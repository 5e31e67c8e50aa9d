"""Fencing: a session that was superseded, revoked, or evicted with its node does nothing any more in its channels.

A session may post to a channel while its connection is listed there. A later login on the same path removes the earlier
connections from each channel that it joins, and the eviction of a node those of all its sessions. Either changes the
fence of the channel, which the script of a post checks (docs/decisions/0014). A node that was held up first reads its
inbox and then carries out requests, so a signal that came before a request is acted upon before it, also where no
channel shows it.
"""

from relay.channels.fanout import FanOut
from relay.model.close_reason import CloseReason, Ended
from relay.model.errors import StoreUnavailable
from relay.redis.channel_log import ChannelLog
from relay.redis.inbox import Inbox
from relay.redis.leases import Holder, Leases
from relay.redis.node_registry import NodeRegistry
from relay.sessions.session import Session

_REASONS = {"superseded": CloseReason.SUPERSEDED, "revoked": CloseReason.REVOKED}


class Fencing:
    """Decides whether a session may still act."""

    def __init__(
        self, *, channel_log: ChannelLog, fanout: FanOut, leases: Leases, registry: NodeRegistry, inbox: Inbox
    ) -> None:
        self._log = channel_log
        self._fanout = fanout
        self._leases = leases
        self._registry = registry
        self._inbox = inbox

    async def check(self, session: Session) -> None:
        """Wait until the signals of the last second are handled.

        Raises:
            Ended: if the session has ended, by one of them or before.
            StoreUnavailable: if the inbox of this node cannot be read, or the node was evicted meanwhile.
        """
        if not self._inbox.is_current:
            await self._inbox.catch_up()
            await self._refuse_if_evicted()
        if session.close_reason is not None:
            raise Ended(session.close_reason)

    async def verify(self, session: Session, channel_id: str) -> None:
        """Take the present fence of a channel in which a session is listed, after another one was refused.

        A session that is not listed and still holds its path is listed again: a failover has lost its listing.

        Raises:
            Ended: if the path was taken or the key revoked; the session is closed.
            StoreUnavailable: also while the node is evicted; the listings follow when it has joined the cluster again.
        """
        fence = await self._log.fence(channel_id, session.connection)
        if fence is None:
            fence = await self._relist(session, channel_id)
        if fence is not None:
            self._fanout.confirm_listing(channel_id, session.connection, fence)

    async def _relist(self, session: Session, channel_id: str) -> str | None:
        """List a session again, and return the fence; None if the channel was deleted."""
        holder = Holder(session.connection, self._registry.node, session.generation)
        await self._refuse_if_evicted()
        (state,) = await self._leases.reassert(holder.node, [session.claim])
        if state != "kept":
            raise _ended(session, _REASONS[state])
        listing = await self._log.add_subscriber(channel_id, session.path, holder)
        if listing is None:
            return None
        if listing.superseded:
            raise _ended(session, CloseReason.SUPERSEDED)
        if self._registry.node != holder.node:
            raise StoreUnavailable("the node joined the cluster again under a new name")
        return listing.fence

    async def _refuse_if_evicted(self) -> None:
        if await self._registry.is_evicted():
            raise StoreUnavailable("the node was evicted, and has not joined the cluster again")


def _ended(session: Session, reason: CloseReason) -> Ended:
    session.close(reason)
    return Ended(session.close_reason or reason)
