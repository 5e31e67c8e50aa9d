"""Why a session ends, in the words that clients are told."""

import enum

from conclave.client import link_errors
from conclave.errors import Code, Refusal


class CloseReason(enum.Enum):
    """The reason of a close. The value is its name in logs and metrics."""

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
        """The sentence for the peer; None where there is nobody left to tell."""
        return _TEXTS.get(self)


_TEXTS = {
    CloseReason.SUPERSEDED: link_errors.SUPERSEDED,
    CloseReason.IDLE: link_errors.IDLE,
    CloseReason.SLOW_READER: link_errors.SLOW,
    CloseReason.REVOKED: link_errors.KEY_REVOKED,
    CloseReason.USER_REMOVED: link_errors.USER_REMOVED,
    CloseReason.SHUTDOWN: link_errors.SHUTDOWN,
    CloseReason.MALFORMED: "what was sent is not the protocol's",
}


class Ended(Refusal):
    """A login that was overtaken by what ends sessions."""

    def __init__(self, reason: CloseReason) -> None:
        super().__init__(Code.UNAUTHORIZED, reason.text or link_errors.TERMINATED)
        self.reason = reason
