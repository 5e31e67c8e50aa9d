"""The reasons for the end of a session, with the texts that clients see."""

import enum

from conclave.errors import Code, Refusal
from conclave.protocol import close_texts


class CloseReason(enum.Enum):
    """The reason for the end of a session. The value is its name in logs and metrics."""

    LEFT = "left"
    LOST = "lost"
    SUPERSEDED = "superseded"
    IDLE = "idle"
    SLOW_READER = "slow_reader"
    REVOKED = "revoked"
    USER_REMOVED = "user_removed"
    SHUTDOWN = "shutdown"
    MALFORMED = "malformed"

    @property
    def text(self) -> str | None:
        """The text for the peer; None if the peer has left."""
        return _TEXTS.get(self)


_TEXTS = {
    CloseReason.SUPERSEDED: close_texts.SUPERSEDED,
    CloseReason.IDLE: close_texts.IDLE,
    CloseReason.SLOW_READER: close_texts.SLOW,
    CloseReason.REVOKED: close_texts.KEY_REVOKED,
    CloseReason.USER_REMOVED: close_texts.USER_REMOVED,
    CloseReason.SHUTDOWN: close_texts.SHUTDOWN,
    CloseReason.MALFORMED: "what was sent is not the protocol's",
}


class Ended(Refusal):
    """A login that was overtaken by the end of its session."""

    def __init__(self, reason: CloseReason) -> None:
        super().__init__(Code.UNAUTHORIZED, reason.text or close_texts.TERMINATED)
        self.reason = reason
