"""Why a link ended, and whether coming back makes sense.

A v2 server closes with a code (`conclave.protocol.v2.close_codes`), which decides; an unknown one means retry. A v1
server says why it ends a session in the text of a last Error frame, and nowhere else: a superseded session, a revoked
key and a slow reader all come as `unauthorized`. So there the exact texts decide, and an unknown one means retry, too.
"""

from conclave.errors import Code, ConclaveError, LinkError, Refusal
from conclave.protocol.v2.close_codes import CloseCode

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

_FINAL_CODES = frozenset({CloseCode.SUPERSEDED, CloseCode.REVOKED, CloseCode.USER_REMOVED, CloseCode.MALFORMED})
_PASSING_CODES = frozenset({CloseCode.INTERNAL, CloseCode.RESTART, CloseCode.LATER})

_PASSING = frozenset({Code.INTERNAL, Code.UNAVAILABLE, Code.RATE_LIMITED})
_IN_DOUBT = frozenset({Code.INTERNAL, Code.UNAVAILABLE})
_TOO_SLOW_A_LOGIN = "handshake timed out"

_IN_WORDS = {
    Code.MALFORMED: "malformed frame",
    Code.NOT_FOUND: "not found",
    Code.INTERNAL: "internal error",
    Code.TOO_LARGE: "too large",
    Code.RATE_LIMITED: "rate limited",
}


class LinkLost(LinkError):
    """A link that was up has ended; `reason` is what the server gave for it, None if it gave none.

    `code` is that of the close, None if a v1 server closed, or nobody did; `retry_after` is after how many seconds to
    come back, where the server told that.
    """

    def __init__(
        self, message: str, reason: str | None = None, *, code: int | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.code = code
        self.retry_after = retry_after

    @property
    def superseded(self) -> bool:
        """Whether a newer connection has taken the session's path."""
        return self.reason == SUPERSEDED if self.code is None else self.code == CloseCode.SUPERSEDED


class LoginRefused(LinkError):
    """The server answered the login, or the registration, with a refusal; `code` is as in LinkLost."""

    def __init__(self, message: str, refusal: Refusal, *, code: int | None = None) -> None:
        super().__init__(message)
        self.refusal = refusal
        self.code = code

    @property
    def retry_after(self) -> float | None:
        """After how many seconds to come back, where the server told that."""
        return self.refusal.retry_after

    @property
    def superseded(self) -> bool:
        """Whether another connection took the path while this one was logging in."""
        return self.refusal.message == SUPERSEDED if self.code is None else self.code == CloseCode.SUPERSEDED


class ClosedLogin(Refusal):
    """The refusal of a login that a server closed with a code."""

    def __init__(self, refusal: Refusal, close_code: int) -> None:
        super().__init__(refusal.code, refusal.message, retry_after=refusal.retry_after)
        self.close_code = close_code


class NotTrusted(LinkError):
    """Whoever answers is not shown to be the cluster that is expected there. Nothing was signed for it."""


def may_retry(error: ConclaveError) -> bool:
    """Tell whether the same connection, or request, may succeed later without anybody changing anything."""
    if isinstance(error, Refusal):
        return error.code in _PASSING
    if isinstance(error, LinkLost):
        return error.reason not in FINAL if error.code is None else error.code not in _FINAL_CODES
    if isinstance(error, LoginRefused):
        passing = error.refusal.code in _PASSING or error.refusal.message == _TOO_SLOW_A_LOGIN
        return passing or error.code in _PASSING_CODES
    return isinstance(error, LinkError) and not isinstance(error, NotTrusted)


def in_doubt(refusal: Refusal) -> bool:
    """Tell whether a v2 server that answers so may have done what it was asked for all the same."""
    return refusal.code in _IN_DOUBT


def not_before(error: ConclaveError) -> float:
    """Return after how many seconds the server wants to see the client again, 0 if it did not tell."""
    told = error.retry_after if isinstance(error, LinkLost | LoginRefused | Refusal) else None
    return max(0.0, told or 0.0)


def in_words(refusal: Refusal) -> str:
    """Return a refusal as users see it: its kind, then the server's sentence."""
    if refusal.code is Code.VERSION:
        return refusal.message
    kind = _IN_WORDS.get(refusal.code, refusal.code.value)
    return f"{kind}: {refusal.message}"
