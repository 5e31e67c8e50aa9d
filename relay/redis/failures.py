"""Failures of Redis and of the way to it: which of them pass, and their text for logs and clients."""

from redis.exceptions import InvalidResponse, RedisError, ResponseError

CONNECTION_ERRORS = (RedisError, OSError, TimeoutError, RuntimeError)
"""The exceptions of a connection that broke. RuntimeError is uvloop's, for a write to a socket that was reset."""

RECONNECT_SECONDS = 0.1
"""The pause before the next attempt to reach Redis."""

_TRANSIENT_REPLIES = ("LOADING", "BUSY", "READONLY", "MASTERDOWN", "OOM", "CLUSTERDOWN", "TRYAGAIN")


def is_transient(reply: ResponseError) -> bool:
    """Tell whether Redis cannot carry out a command at present, rather than that the command is wrong."""
    return str(reply).startswith(_TRANSIENT_REPLIES)


def reply_text(reply: BaseException) -> str:
    """Return the text of an error reply, without the arguments that it quotes of an unknown command."""
    return str(reply).partition(", with args")[0]


def describe(error: BaseException) -> str:
    """Return the type and the text of an exception, without the text where that quotes what was received."""
    if isinstance(error, InvalidResponse):
        return type(error).__name__
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
