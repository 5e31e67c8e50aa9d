"""The sessions of this node, by connection, and the signals of other nodes to them."""

import asyncio
from collections.abc import Iterable, Iterator

from relay.model.close_reason import CloseReason
from relay.redis.signals import Revoke, Signal, Supersede, Whisper
from relay.sessions.session import Session

_REVOCATIONS = frozenset({CloseReason.REVOKED.value, CloseReason.USER_REMOVED.value})


class SessionRegistry:
    """The live sessions. A session is here from before its lease is taken until its presence ends."""

    def __init__(self) -> None:
        self._by_connection: dict[str, Session] = {}
        self._empty = asyncio.Event()
        self._closed: CloseReason | None = None

    def __iter__(self) -> Iterator[Session]:
        return iter(list(self._by_connection.values()))

    def __contains__(self, session: object) -> bool:
        return isinstance(session, Session) and self._by_connection.get(session.connection) is session

    def get(self, connection: str) -> Session | None:
        return self._by_connection.get(connection)

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

    def handle_signal(self, signal: Signal) -> bool:
        """Act on a signal from this node's inbox. Returns whether it was for a session that is here.

        A signal for a session that has ended is ignored. A whisper has reached its session if it is in the outbox.
        """
        match signal:
            case Supersede(connection):
                return self._close([self._by_connection.get(connection)], CloseReason.SUPERSEDED)
            case Whisper(connection):
                session = self._by_connection.get(connection)
                return session is not None and _whisper(session, signal)
            case Revoke(pubkey, reason):
                # A reason that a later version knows is a revocation all the same.
                known = CloseReason(reason) if reason in _REVOCATIONS else CloseReason.REVOKED
                return self._close([session for session in self if session.pubkey == pubkey], known)
            case _:
                return False

    def _close(self, sessions: Iterable[Session | None], reason: CloseReason) -> bool:
        present = [session for session in sessions if session is not None]
        for session in present:
            session.close(reason)
        return bool(present)

    def close_all(self, reason: CloseReason) -> None:
        """Close every session, and every one that is added later because its login was under way."""
        self._closed = reason
        for session in self:
            session.close(reason)

    def close_idle(self, now: float, idle_seconds: float, *, held_up: float) -> None:
        """Close the sessions whose last activity is that long ago. `now` is by the event loop's clock.

        The `held_up` seconds before `now` do not count: the process did not run, and has not read what clients sent.
        """
        for session in self:
            session.last_activity = min(now, session.last_activity + held_up)
            if now - session.last_activity >= idle_seconds:
                session.close(CloseReason.IDLE)


def _whisper(session: Session, whisper: Whisper) -> bool:
    """Put a whisper into the outbox, unless it is there from an earlier attempt. False if the session ends."""
    if session.close_reason is None and not (whisper.repeatable and session.is_repeated(whisper.id)):
        session.outbox.push(session.encoder.whisper(whisper))
    return session.close_reason is None
