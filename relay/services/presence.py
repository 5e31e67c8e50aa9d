"""Who is here: opening and closing sessions on this node, and seeing those of all nodes."""

import asyncio
from collections import deque

import structlog

from conclave.model import SessionPath
from conclave.protocol.credentials import unknown_key
from relay.channels.fanout import FanOut
from relay.model.close_reason import CloseReason, Ended
from relay.model.errors import StoreUnavailable
from relay.redis.channel_log import ChannelLog
from relay.redis.directory import Directory
from relay.redis.inbox import Inbox, Supersede
from relay.redis.leases import Holder, Leases
from relay.redis.node_registry import NodeRegistry
from relay.services.refusals import channel_not_found
from relay.sessions.registry import SessionRegistry
from relay.sessions.session import Session

log = structlog.get_logger()


class Presence:
    """SessionRegistry come and go; everybody sees the same list on every node."""

    def __init__(
        self,
        *,
        sessions: SessionRegistry,
        leases: Leases,
        directory: Directory,
        channel_log: ChannelLog,
        fanout: FanOut,
        inbox: Inbox,
        registry: NodeRegistry,
        policy: str,
    ) -> None:
        """`policy` is `everyone` or `shared`: whom a session sees without naming a channel."""
        self._sessions = sessions
        self._leases = leases
        self._directory = directory
        self._log = channel_log
        self._fanout = fanout
        self._inbox = inbox
        self._registry = registry
        self._policy = policy
        self._departed: deque[tuple[SessionPath, str, str, frozenset[str]]] = deque()

    async def open(self, session: Session) -> None:
        """Make a session present under its path and supersede whoever held the path. Raises: Refusal.

        The session is in this node's table before the lease is taken, so a signal that follows the lease finds it.
        """
        node = self._registry.node
        self._sessions.add(session)
        try:
            generation, holders, enrolled = await self._leases.take(
                session.path, session.pubkey, node=node, connection=session.connection
            )
            session.generation = generation
            _check(enrolled=enrolled, same_node=self._registry.node == node)
            await asyncio.gather(*(self._supersede(holder) for holder in holders))
        except BaseException:
            self._sessions.remove(session)
            await self._depart(session.path, node, session.connection, frozenset())
            raise
        if session.close_reason is not None:
            reason = session.close_reason
            await self.close(session)
            raise Ended(reason)

    async def _supersede(self, holder: Holder) -> None:
        await self._inbox.send(holder.node, Supersede(holder.connection))

    async def close(self, session: Session) -> None:
        """Take a session out of presence and out of its channels. If Redis is away, that is done when it is back."""
        self._sessions.remove(session)
        for channel_id in session.joined.values():
            self._fanout.leave(session, channel_id)
        session.joined.clear()
        await self._depart(session.path, self._registry.node, session.connection, frozenset(session.listed_in))

    async def _depart(self, path: SessionPath, node: str, connection: str, channels: frozenset[str]) -> None:
        try:
            await asyncio.gather(
                self._leases.release(path, node=node, connection=connection),
                *(self._log.remove_subscriber(channel_id, connection) for channel_id in channels),
            )
        except StoreUnavailable:
            self._departed.append((path, node, connection, channels))

    async def reassert(self) -> None:
        """Say again what this node serves and what has left, after an outage. Raises: StoreUnavailable.

        A session whose path was taken meanwhile, or whose key was revoked, is closed.
        """
        for _ in range(len(self._departed)):
            await self._depart(*self._departed.popleft())
        await asyncio.gather(*(self._reassert(session) for session in self._sessions))

    async def _reassert(self, session: Session) -> None:
        if not session.generation:
            return  # its login is under way
        node = self._registry.node
        holder = Holder(session.connection, node, session.generation)
        match await self._leases.reassert(session.path, session.pubkey, holder):
            case "superseded":
                session.close(CloseReason.SUPERSEDED)
                return
            case "revoked":
                session.close(CloseReason.REVOKED)
                return
        await asyncio.gather(
            *(
                self._log.add_subscriber(channel_id, session.path, node, session.connection)
                for channel_id in session.joined.values()
            )
        )

    async def everybody(self, session: Session) -> list[str]:
        """Return the paths of all sessions on all nodes that the caller may see. Raises: StoreUnavailable.

        Under the policy `shared` these are the sessions of users who are members of one of the caller's channels, or
        are in a channel that this session has joined; admins of the server see everybody.
        """
        alive = await self._registry.alive()
        paths = await self._leases.sessions(alive)
        if self._policy == "everyone" or session.admin:
            return paths
        users = await self._directory.acquaintances(session.path.user)
        rooms = await asyncio.gather(*(self._log.subscribers(channel_id) for channel_id in session.joined.values()))
        users |= {path.partition("/")[0] for room in rooms for node, path in room if node in alive}
        return [path for path in paths if path.partition("/")[0] in users]

    async def in_channel(self, session: Session, name: str) -> list[str]:
        """Return the paths of a channel's subscribers on all nodes, for those who may see them. Raises: Refusal.

        That is everybody for a public channel; members, server admins and subscribers for the others.
        """
        await self._fanout.apply_latest_version(session.joined.get(name, ""))
        channel_id = session.joined.get(name) or await self._directory.visible_channel(name, session.caller)
        if channel_id is None:
            raise channel_not_found(name)
        subscribers, alive = await asyncio.gather(self._log.subscribers(channel_id), self._registry.alive())
        return sorted({path for node, path in subscribers if node in alive})


def _check(*, enrolled: bool, same_node: bool) -> None:
    """Refuse a login whose ground has moved while it took its lease."""
    if not enrolled:
        raise unknown_key()
    if not same_node:
        raise StoreUnavailable("the node left the cluster during the login")
