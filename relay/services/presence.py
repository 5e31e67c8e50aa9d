"""Presence: sessions that appear and disappear, and the lists of those that are there."""

import asyncio

from conclave.protocol.credentials import unknown_key
from relay.channels.fanout import FanOut
from relay.cluster.session_records import SessionRecords
from relay.model.close_reason import Ended
from relay.model.errors import StoreUnavailable
from relay.redis.channel_log import ChannelLog
from relay.redis.directory import Directory
from relay.redis.inbox import Inbox
from relay.redis.leases import Leases
from relay.redis.node_registry import NodeRegistry
from relay.redis.signals import Supersede
from relay.services.refusals import channel_not_found
from relay.sessions.registry import SessionRegistry
from relay.sessions.session import Session


class Presence:
    """The sessions of all nodes. Every node shows the same list."""

    def __init__(
        self,
        *,
        sessions: SessionRegistry,
        records: SessionRecords,
        leases: Leases,
        directory: Directory,
        channel_log: ChannelLog,
        fanout: FanOut,
        inbox: Inbox,
        registry: NodeRegistry,
        policy: str,
    ) -> None:
        """`policy` is `everyone` or `shared`: the sessions that a user sees without naming a channel."""
        self._sessions = sessions
        self._records = records
        self._leases = leases
        self._directory = directory
        self._log = channel_log
        self._fanout = fanout
        self._inbox = inbox
        self._registry = registry
        self._policy = policy

    async def open(self, session: Session) -> None:
        """Make a session present under its path, and supersede the path's earlier holders. Raises: Refusal.

        The session is in this node's registry before the lease is taken: a signal that follows the lease finds it.
        """
        node = self._registry.node
        self._sessions.add(session)
        try:
            generation, holders, enrolled = await self._leases.take(
                session.path, session.pubkey, node=node, connection=session.connection
            )
            session.generation = generation
            session.supersedes = tuple(holder.connection for holder in holders)
            _check(enrolled=enrolled, same_node=self._registry.node == node)
            await asyncio.gather(*(self._inbox.send(holder.node, Supersede(holder.connection)) for holder in holders))
        except BaseException:
            self._sessions.remove(session)
            await self._records.remove(session, node)
            raise
        if session.close_reason is not None:
            reason = session.close_reason
            await self.close(session)
            raise Ended(reason)

    async def close(self, session: Session) -> None:
        """End a session's presence and take it out of its channels. During an outage of Redis its records follow."""
        self._sessions.remove(session)
        for channel_id in session.joined.values():
            self._fanout.leave(session, channel_id)
        session.joined.clear()
        await self._records.remove(session, self._registry.node)

    async def everybody(self, session: Session) -> list[str]:
        """Return the paths of all sessions that the caller may see, sorted. Raises: StoreUnavailable.

        Under the policy `shared` these are the sessions of users who are members of one of the caller's channels, or
        are in a channel that this session has joined. Admins of the server see every session.
        """
        alive = await self._registry.alive()
        paths = await self._leases.sessions(alive)
        if self._policy == "everyone" or session.admin:
            return paths
        users = await self._directory.acquaintances(session.path.user)
        joined = await asyncio.gather(*(self._log.subscribers(channel_id) for channel_id in session.joined.values()))
        users |= {path.partition("/")[0] for subscribers in joined for node, path in subscribers if node in alive}
        return [path for path in paths if path.partition("/")[0] in users]

    async def in_channel(self, session: Session, name: str) -> list[str]:
        """Return the paths of the sessions in a channel, on all nodes, sorted. Raises: Refusal.

        Everybody may see those of a public channel; for other channels, members, server admins and the sessions in it.
        """
        await self._fanout.apply_latest_version(session.joined.get(name, ""))
        channel_id = session.joined.get(name) or await self._directory.visible_channel(name, session.caller)
        if channel_id is None:
            raise channel_not_found(name)
        subscribers, alive = await asyncio.gather(self._log.subscribers(channel_id), self._registry.alive())
        return sorted({path for node, path in subscribers if node in alive})


def _check(*, enrolled: bool, same_node: bool) -> None:
    """Refuse a login whose key was revoked, or whose node was evicted, before the lease was taken."""
    if not enrolled:
        raise unknown_key()
    if not same_node:
        raise StoreUnavailable("the node left the cluster during the login")
