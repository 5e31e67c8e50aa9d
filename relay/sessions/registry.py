"""The sessions of this node, by connection, and the signals of other nodes to them."""

import asyncio
from collections.abc import Iterator

from relay.model.close_reason import CloseReason
from relay.redis.inbox import Revoke, Signal, Supersede, Whisper
from relay.sessions.session import Session


class SessionRegistry:
    """The live sessions. A session is here from before its lease is taken until its presence ends."""

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

    async def wait_until_empty(self) -> None:
        """Wait until the last session has been removed."""
        if self._by_connection:
            self._empty.clear()
            await self._empty.wait()

    def handle_signal(self, signal: Signal) -> None:
        """Act on a signal from this node's inbox. A signal for a session that has ended is ignored."""
        match signal:
            case Supersede(connection):
                if session := self._by_connection.get(connection):
                    session.close(CloseReason.SUPERSEDED)
            case Whisper(connection):
                session = self._by_connection.get(connection)
                if session is not None and not (signal.repeatable and session.is_repeated(signal.id)):
                    session.outbox.push(session.encoder.whisper(signal))
            case Revoke(pubkey, reason):
                for session in self:
                    if session.pubkey == pubkey:
                        session.close(CloseReason(reason))

    def close_all(self, reason: CloseReason) -> None:
        """Close every session, and every one that is added later because its login was under way."""
        self._closed = reason
        for session in self:
            session.close(reason)

    def close_idle(self, now: float, idle_seconds: float) -> None:
        """Close the sessions whose last activity is that long ago. `now` is by the event loop's clock."""
        for session in self:
            if now - session.last_activity >= idle_seconds:
                session.close(CloseReason.IDLE)
