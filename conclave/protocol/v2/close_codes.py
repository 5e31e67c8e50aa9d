"""The codes of a WebSocket close, each with the reaction that it asks of the client."""

import enum

from conclave.errors import Code


class CloseCode(enum.IntEnum):
    """The code of a close. Codes below 4000 are those of the WebSocket protocol and its registry."""

    NORMAL = 1000
    INTERNAL = 1011
    """The relay failed. Reconnect, and join with `since`."""
    RESTART = 1012
    """The node restarts or drains. Reconnect immediately, with jitter."""
    LATER = 1013
    """The relay is overloaded or cannot reach its store. Reconnect after `retry_after`."""
    SUPERSEDED = 4001
    """A newer connection took this path. Do not reconnect under it."""
    REVOKED = 4002
    """The machine's key was revoked. Stop."""
    USER_REMOVED = 4003
    """The user was removed. Stop."""
    IDLE = 4004
    """The session was idle for too long. Reconnect, and join with `since`."""
    SLOW_READER = 4005
    """More bytes were pending than a session may have. Reconnect, and join with `since`."""
    LOGIN = 4006
    """The login failed, or took too long. Stop, and show the reason."""
    MALFORMED = 4007
    """A message was not of the protocol. Stop, and show the reason."""


_OF_LOGIN = {
    Code.MALFORMED: CloseCode.MALFORMED,
    Code.RATE_LIMITED: CloseCode.LATER,
    Code.UNAVAILABLE: CloseCode.LATER,
    Code.INTERNAL: CloseCode.INTERNAL,
}


def login_close(code: Code) -> CloseCode:
    """Return the close code of a login that was refused with this code."""
    return _OF_LOGIN.get(code, CloseCode.LOGIN)
