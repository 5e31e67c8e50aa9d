"""The records of this node's sessions in Redis: leases, the list of the node's sessions, and channels' subscribers.

Redis may be away when a session ends, and a node may be evicted, which removes the records of all its sessions. So what
is still to be written or removed is kept here until Redis has confirmed it, and is worked off in batches, by one caller
at a time.
"""

import asyncio
from collections.abc import Iterable
from functools import partial
from typing import Any

import msgspec

from conclave.model import SessionPath
from relay.cluster.pending import Batch, Pending, V
from relay.model.close_reason import CloseReason
from relay.model.errors import StoreUnavailable
from relay.redis.batches import IN_FLIGHT, NAMES, pieces
from relay.redis.channel_log import ChannelLog
from relay.redis.directory import EVERY_CHANNEL, Directory
from relay.redis.leases import Leases
from relay.redis.node_registry import NodeRegistry
from relay.sessions.registry import SessionRegistry
from relay.sessions.session import Session

_LATE_SECONDS = 30.0
"""The time after an interruption within which Redis may get what was sent before."""
_CLOSES = {"superseded": CloseReason.SUPERSEDED, "revoked": CloseReason.REVOKED}


class Ended(msgspec.Struct, frozen=True):
    """A session that has ended, and the ids of the channels in which the directory may note it."""

    path: SessionPath
    noted_in: list[str]


class SessionRecords:
    """The records of the sessions of this node, written and pending."""

    def __init__(
        self,
        *,
        sessions: SessionRegistry,
        leases: Leases,
        channel_log: ChannelLog,
        directory: Directory,
        registry: NodeRegistry,
    ) -> None:
        self._directory = directory
        self._sessions = sessions
        self._leases = leases
        self._log = channel_log
        self._registry = registry
        self._settling = asyncio.Lock()
        self._unrecorded: Pending[Session] = Pending()
        """The sessions whose leases and listings are to be written again, by connection."""
        self._ended: Pending[Ended] = Pending()
        """The leases and notes that are to be removed, by the name of the node that took them, and by connection."""
        self._left: Pending[None] = Pending()
        """The subscribers that are to be removed, by channel and connection."""
        self._strays_at: list[float] = []
        """The times of the next looks for stray records."""

    @property
    def pending(self) -> int:
        """The number of records that are still to be written or removed."""
        return len(self._unrecorded) + len(self._ended) + len(self._left)

    # --- One session ---

    async def remove(self, session: Session, node: str) -> None:
        """Remove the records of a session that took its lease at `node`; during an outage, once that is over."""
        channel_ids, noted_in = list(session.listed_in), list(session.noted_in)
        try:
            await asyncio.gather(
                self._leases.release(node, {session.connection: session.path}),
                *(self._log.remove_subscribers(channel_id, session.connection) for channel_id in channel_ids),
                self._forget_joins(session.path, session.connection, noted_in),
            )
        except StoreUnavailable:
            self._ended.add(node, session.connection, Ended(session.path, noted_in))
            for channel_id in channel_ids:
                self._left.add(channel_id, session.connection, None)

    async def _forget_joins(self, path: SessionPath, connection: str, channel_ids: list[str]) -> None:
        for piece in pieces(channel_ids, NAMES):
            await self._directory.forget_joins(path, connection, piece)

    def expect_note(self, session: Session) -> None:
        """Prepare for a session to be noted in a channel whose id is not known."""
        session.noted_in.add(EVERY_CHANNEL)

    def expect_listing(self, session: Session, channel_id: str) -> None:
        """Prepare for a session to be listed as a subscriber of a channel: an earlier removal is not repeated."""
        session.noted_in.add(channel_id)
        session.listed_in.add(channel_id)
        self._left.discard(channel_id, session.connection)

    def unlist(self, session: Session, channel_id: str) -> "asyncio.Future[Any]":
        """Remove a session from the subscribers of a channel; during an outage, once that is over.

        Raises, in the future: StoreUnavailable, if it is not removed yet.
        """
        session.listed_in.discard(channel_id)
        removed = self._log.remove_subscribers(channel_id, session.connection)
        removed.add_done_callback(partial(self._unlist_later, session.connection, channel_id))
        self.unnote(session, channel_id)
        return removed

    def _unlist_later(self, connection: str, channel_id: str, removed: "asyncio.Future[Any]") -> None:
        if removed.cancelled() or removed.exception() is not None:
            self._left.add(channel_id, connection, None)

    def unnote(self, session: Session, channel_id: str) -> None:
        """Remove the directory's note that a session is in a channel: now, or else with the session."""
        session.noted_in.discard(channel_id)
        forgotten = self._directory.forget_joins(session.path, session.connection, [channel_id])
        forgotten.add_done_callback(partial(_note_again, session, channel_id))

    # --- All sessions ---

    def expect_all(self) -> None:
        """Have the records of all sessions written again: they may be gone, or carry a former name of this node."""
        for session in self._sessions:
            self._unrecorded.add("", session.connection, session)
        now = asyncio.get_running_loop().time()
        self._strays_at = [now, now + _LATE_SECONDS]

    async def find_strays(self) -> None:
        """Have records removed that this node has written, and that belong to no session. Raises: StoreUnavailable.

        Redis may carry out what it got over a lost connection behind what it gets over the next one: a login or a join
        behind its end. So this looks twice after each interruption, the second time half a minute later.
        """
        if not self._strays_at or asyncio.get_running_loop().time() < self._strays_at[0]:
            return
        due, node = self._strays_at, self._registry.node
        async for sessions in self._leases.node_sessions(node):
            for connection, path in sessions.items():
                if self._sessions.get(connection) is None:
                    self._ended.add(node, connection, Ended(path, [EVERY_CHANNEL]))
        async for subscribers in self._log.node_subscribers(node):
            for channel_id, connections in subscribers.items():
                for connection in connections:
                    if not self._is_listed(connection, channel_id):
                        self._left.add(channel_id, connection, None)
        due.pop(0)

    def _is_listed(self, connection: str, channel_id: str) -> bool:
        """Tell whether a session is in a channel, or joins it."""
        session = self._sessions.get(connection)
        return session is not None and channel_id in session.listed_in

    async def settle(self) -> None:
        """Remove and write what is pending. A call that comes while another one works waits, and does the rest.

        A session whose path was taken meanwhile, or whose key was revoked, is closed. Raises: StoreUnavailable; then
        the rest stays pending.
        """
        async with self._settling:
            while self._left:
                await self._remove_subscribers()
            while self._ended:
                await self._release()
            while self._unrecorded:
                await self._record()

    async def _remove_subscribers(self) -> None:
        batch = self._left.batch()
        await asyncio.gather(*(self._log.remove_subscribers(each, *gone) for each, gone in batch.items()))
        self._left.done(batch)

    async def _release(self) -> None:
        batch = self._ended.batch()
        for node, ended in batch.items():
            await self._leases.release(node, {connection: entry.value.path for connection, entry in ended.items()})
            for connection, entry in ended.items():
                await self._forget_joins(entry.value.path, connection, entry.value.noted_in)
        self._ended.done(batch)

    async def _record(self) -> None:
        batch = self._unrecorded.batch(weight=lambda session: 1 + len(session.listed_in))
        # A login that is under way has no generation yet. It fails if the node has left the cluster.
        sessions = [each for each in _values(batch) if each in self._sessions and each.generation]
        if sessions:
            await self._list(await self._claim(sessions))
        self._unrecorded.done(batch)

    async def _claim(self, sessions: list[Session]) -> list[Session]:
        """Write leases again, and return the sessions that still hold their paths. The others are closed."""
        outcomes = await self._leases.reassert(self._registry.node, [session.claim for session in sessions])
        for session, outcome in zip(sessions, outcomes, strict=True):
            if outcome != "kept":
                session.close(_CLOSES[outcome])
        return [session for session, outcome in zip(sessions, outcomes, strict=True) if outcome == "kept"]

    async def _list(self, sessions: list[Session]) -> None:
        """List sessions in their channels again.

        The leases are read after that. So a later connection on one of the paths has either been seen here, or sees
        this one in the lease and removes it from each list in which it is listed itself.
        """
        by_channel: dict[str, list[Session]] = {}
        for session in sessions:
            for channel_id in session.listed_in:
                by_channel.setdefault(channel_id, []).append(session)
        for piece in pieces(by_channel.items(), IN_FLIGHT):
            await self._log.keep_subscribers(self._registry.node, self._present(piece))
        await self._directory.keep_joins(
            (each.path, each.connection, channel_id)
            for each in sessions
            if each in self._sessions
            for channel_id in list(each.listed_in)
        )
        superseded = await self._leases.superseded([session.claim for session in sessions])
        for session, is_superseded in zip(sessions, superseded, strict=True):
            if is_superseded:
                session.close(CloseReason.SUPERSEDED)

    def _present(self, channels: Iterable[tuple[str, list[Session]]]) -> dict[str, dict[str, str]]:
        """Return the connections and paths of those who are in each channel, or join it, at this moment."""
        present = {
            channel_id: {
                each.connection: each.path_text for each in sessions if self._is_listed(each.connection, channel_id)
            }
            for channel_id, sessions in channels
        }
        return {channel_id: paths for channel_id, paths in present.items() if paths}


def _note_again(session: Session, channel_id: str, forgotten: "asyncio.Future[Any]") -> None:
    """Leave it to the end of the session to remove a note that was not removed."""
    if forgotten.cancelled() or forgotten.exception() is not None:
        session.noted_in.add(channel_id)


def _values(batch: Batch[V]) -> list[V]:
    return [entry.value for entries in batch.values() for entry in entries.values()]
