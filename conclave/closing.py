"""Why a link ended, and whether coming back makes sense.

A v1 server says why it ends a session in the text of a last Error frame, and nowhere else: a superseded session, a
revoked key and a slow reader all come as `unauthorized`. So the exact texts decide, and an unknown one means retry.
"""

from conclave.errors import Code, ConclaveError, LinkError, Refusal

# The words of the original, which clients and scripts match on.
SUPERSEDED = "session superseded by a newer connection for the same session path"
USER_REMOVED = "user removed from this server"
KEY_REVOKED = "machine key revoked"
IDLE = "idle timeout: no heartbeat"
SLOW = "slow consumer: outbound queue overflowed"
TERMINATED = "session terminated"
# This relay's own.
SHUTDOWN = "the relay is shutting down; reconnect"

FINAL = frozenset({SUPERSEDED, USER_REMOVED, KEY_REVOKED})
"""Coming back after these is refused, or takes the path away from whoever holds it now."""

KILLS = FINAL | {IDLE, SLOW, TERMINATED, SHUTDOWN}
"""Every text that a server ends a live session with; none of them ever answers a request."""

_PASSING = frozenset({Code.INTERNAL, Code.UNAVAILABLE, Code.RATE_LIMITED})
_TOO_SLOW_A_LOGIN = "handshake timed out"

_IN_WORDS = {
    Code.MALFORMED: "malformed frame",
    Code.NOT_FOUND: "not found",
    Code.INTERNAL: "internal error",
    Code.TOO_LARGE: "too large",
    Code.RATE_LIMITED: "rate limited",
}


class LinkLost(LinkError):
    """A link that was up has ended; `reason` is what the server gave for it, None if it gave none."""

    def __init__(self, message: str, reason: str | None = None) -> None:
        super().__init__(message)
        self.reason = reason

    @property
    def superseded(self) -> bool:
        """Whether a newer connection has taken the session's path."""
        return self.reason == SUPERSEDED


class LoginRefused(LinkError):
    """The server answered the login, or the registration, with a refusal."""

    def __init__(self, message: str, refusal: Refusal) -> None:
        super().__init__(message)
        self.refusal = refusal


def may_retry(error: ConclaveError) -> bool:
    """Tell whether the same connection may succeed later without anybody changing anything."""
    if isinstance(error, LinkLost):
        return error.reason not in FINAL
    if isinstance(error, LoginRefused):
        return error.refusal.code in _PASSING or error.refusal.message == _TOO_SLOW_A_LOGIN
    return isinstance(error, LinkError)


def in_words(refusal: Refusal) -> str:
    """Return a refusal as users see it: its kind, then the server's sentence."""
    if refusal.code is Code.VERSION:
        return refusal.message
    kind = _IN_WORDS.get(refusal.code, refusal.code.value)
    return f"{kind}: {refusal.message}"
