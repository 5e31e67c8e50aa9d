"""With which code a WebSocket is closed, and what that asks of the client."""

import enum

from conclave.errors import Code


class CloseCode(enum.IntEnum):
    """The code of a close. Below 4000 they are those of the WebSocket protocol and its registry."""

    NORMAL = 1000
    INTERNAL = 1011
    """The relay failed; come back with `since`."""
    RESTART = 1012
    """The node restarts or drains; come back at once, with jitter."""
    LATER = 1013
    """The relay is overloaded or has lost its store; come back after `retry_after`."""
    SUPERSEDED = 4001
    """A newer connection took this path; do not come back under it."""
    REVOKED = 4002
    """The machine's key was revoked; stop."""
    USER_REMOVED = 4003
    """The user was removed; stop."""
    IDLE = 4004
    """Nothing was heard for too long; come back with `since`."""
    SLOW_READER = 4005
    """More was waiting than a session may have; come back with `since`."""
    LOGIN = 4006
    """The login failed, or took too long; stop and show the reason."""
    MALFORMED = 4007
    """What was sent is not the protocol's; stop and show the reason."""


_OF_LOGIN = {
    Code.MALFORMED: CloseCode.MALFORMED,
    Code.RATE_LIMITED: CloseCode.LATER,
    Code.UNAVAILABLE: CloseCode.LATER,
    Code.INTERNAL: CloseCode.INTERNAL,
}


def login_close(code: Code) -> CloseCode:
    """Return what a login ends with that was refused with this code."""
    return _OF_LOGIN.get(code, CloseCode.LOGIN)
