"""The sessions of this node, by connection and by machine."""

import asyncio
from collections.abc import Iterator

from relay.model.close_reason import CloseReason
from relay.redis.inbox import Revoke, Signal, Supersede, Whisper
from relay.sessions.session import Session


class SessionRegistry:
    """A table of live sessions; also where signals from other nodes arrive."""

    def __init__(self) -> None:
        self._by_connection: dict[str, Session] = {}
        self._empty = asyncio.Event()
        self._closed: CloseReason | None = None

    def __iter__(self) -> Iterator[Session]:
        return iter(list(self._by_connection.values()))

    def __len__(self) -> int:
        return len(self._by_connection)

    def add(self, session: Session) -> None:
        self._by_connection[session.connection] = session
        if self._closed is not None:
            session.close(self._closed)

    def remove(self, session: Session) -> None:
        self._by_connection.pop(session.connection, None)
        if not self._by_connection:
            self._empty.set()

    async def empty(self) -> None:
        """Wait until the last session is gone."""
        if self._by_connection:
            self._empty.clear()
            await self._empty.wait()

    def handle(self, signal: Signal) -> None:
        """Act on what another node, or this one, put into the inbox. What concerns nobody here is over already."""
        match signal:
            case Supersede(connection):
                if session := self._by_connection.get(connection):
                    session.close(CloseReason.SUPERSEDED)
            case Whisper(connection):
                session = self._by_connection.get(connection)
                if session is not None and not (signal.repeatable and session.has_heard(signal.id)):
                    session.outbox.push(session.encoder.whisper(signal))
            case Revoke(pubkey, reason):
                for session in self:
                    if session.pubkey == pubkey:
                        session.close(CloseReason(reason))

    def close_all(self, reason: CloseReason) -> None:
        """Close every session, and every one that is added from now on: its login was under way."""
        self._closed = reason
        for session in self:
            session.close(reason)

    def reap(self, now: float, longest_silence: float) -> None:
        """Close the sessions that have been silent for too long (seconds of the event loop's clock)."""
        for session in self:
            if now - session.last_heard >= longest_silence:
                session.close(CloseReason.IDLE)
