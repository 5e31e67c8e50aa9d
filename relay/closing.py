"""Why a session ends, in the words that clients are told."""

import enum


class CloseReason(enum.Enum):
    """The reason of a close. The value is its name in logs and metrics."""

    LEFT = "left"
    LOST = "lost"
    SUPERSEDED = "superseded"
    IDLE = "idle"
    SLOW_READER = "slow_reader"
    REVOKED = "revoked"
    USER_REMOVED = "user_removed"
    STORE_AWAY = "store_away"
    SHUTDOWN = "shutdown"

    @property
    def text(self) -> str | None:
        """The sentence for the peer; None where there is nobody left to tell."""
        return _TEXTS.get(self)


# The first five are the original's words: clients and scripts match on them.
_TEXTS = {
    CloseReason.SUPERSEDED: "session superseded by a newer connection for the same session path",
    CloseReason.IDLE: "idle timeout: no heartbeat",
    CloseReason.SLOW_READER: "slow consumer: outbound queue overflowed",
    CloseReason.REVOKED: "machine key revoked",
    CloseReason.USER_REMOVED: "user removed from this server",
    CloseReason.STORE_AWAY: "the relay lost its place in the cluster; reconnect",
    CloseReason.SHUTDOWN: "the relay is shutting down; reconnect",
}
