"""The records of this node's sessions in Redis: leases, the list of the node's sessions, and channels' subscribers.

Redis may be away when a session ends, and a node may be evicted, which removes the records of all its sessions. So
removals that failed are kept, and `reassert` makes the records agree with the sessions again.
"""

import asyncio
from collections import deque

from conclave.model import SessionPath
from relay.model.close_reason import CloseReason
from relay.model.errors import StoreUnavailable
from relay.redis.channel_log import ChannelLog
from relay.redis.leases import Holder, Leases
from relay.redis.node_registry import NodeRegistry
from relay.sessions.registry import SessionRegistry
from relay.sessions.session import Session


class SessionRecords:
    """The removal and the repeated assertion of records."""

    def __init__(
        self, *, sessions: SessionRegistry, leases: Leases, channel_log: ChannelLog, registry: NodeRegistry
    ) -> None:
        self._sessions = sessions
        self._leases = leases
        self._log = channel_log
        self._registry = registry
        self._to_remove: deque[tuple[SessionPath, str, str, frozenset[str]]] = deque()

    async def remove(self, path: SessionPath, *, node: str, connection: str, channels: frozenset[str]) -> None:
        """Remove a session's records, those in these channels (ids) included; during an outage, once that is over."""
        try:
            await asyncio.gather(
                self._leases.release(path, node=node, connection=connection),
                *(self._log.remove_subscriber(channel_id, connection) for channel_id in channels),
            )
        except StoreUnavailable:
            self._to_remove.append((path, node, connection, channels))

    async def reassert(self) -> None:
        """Write the records of all sessions again, and remove those of sessions that have ended.

        A session whose path was taken meanwhile, or whose key was revoked, is closed. Raises: StoreUnavailable.
        """
        for _ in range(len(self._to_remove)):
            path, node, connection, channels = self._to_remove.popleft()
            await self.remove(path, node=node, connection=connection, channels=channels)
        await asyncio.gather(*(self._reassert(session) for session in self._sessions))

    async def _reassert(self, session: Session) -> None:
        if not session.generation:
            return  # its login is under way, and notices that the node has left the cluster
        node = self._registry.node
        holder = Holder(session.connection, node, session.generation)
        match await self._leases.reassert(session.path, session.pubkey, holder):
            case "superseded":
                session.close(CloseReason.SUPERSEDED)
                return
            case "revoked":
                session.close(CloseReason.REVOKED)
                return
        await asyncio.gather(*(self._relist(session, channel_id, holder) for channel_id in session.joined.values()))

    async def _relist(self, session: Session, channel_id: str, holder: Holder) -> None:
        session.relistings += 1
        listing = await self._log.add_subscriber(channel_id, session.path, holder)
        if listing is not None and listing.superseded:
            session.close(CloseReason.SUPERSEDED)
