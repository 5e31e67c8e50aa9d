"""Failures of Redis and of the way to it: what each of them means, and their text for logs and clients.

The code of an error reply, its first word, decides what it means. A server that cannot serve as a primary now
(`MUST_RECONNECT`) is left; another may be behind the address. One that refuses commands for the moment (`OOM`,
`MISCONF`, `NOPERM`, every code that is not listed here) keeps its connections, and the node is not ready. `DEFECTS` are
errors of this program.
"""

import re
from typing import Any

from redis.exceptions import InvalidResponse, RedisError, ResponseError

from relay.model.errors import StoreDefect, StoreRefused, StoreUnavailable

CONNECTION_ERRORS = (RedisError, OSError, TimeoutError, RuntimeError)
"""The exceptions of a connection that broke. RuntimeError is uvloop's, for a write to a socket that was reset."""

RECONNECT_SECONDS = 0.1
"""The pause before the next attempt to reach Redis."""

MUST_RECONNECT = frozenset({"READONLY", "MASTERDOWN", "LOADING", "CLUSTERDOWN", "NOAUTH", "WRONGPASS"})
"""The codes after which no command on this connection fares better. `WRONGPASS`: the password was changed."""
DEFECTS = frozenset({"ERR", "WRONGTYPE", "CROSSSLOT", "EXECABORT"})

_IN_SCRIPT = re.compile(r"ERR Error running script \(call to \w+\): (?:@user_script: ?\d+: )+-?")
"""The text that Redis before version 7 writes before the error of a command in a script."""
_NO_PERMISSION_IN_SCRIPT = re.compile(r"(?:ERR )?(?:ACL failure in script|The user executing the script can't)")
"""Redis gives no code of its own to a permission that is missing inside a script."""
_CODE = re.compile(r"[A-Z][A-Z0-9_]+(?= |$)")


class ErrorReply(ResponseError):
    """An error that Redis replied, with its code; the text is the whole reply."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.code = _code(text)


def _code(text: str) -> str:
    text = _IN_SCRIPT.sub("", text)
    if _NO_PERMISSION_IN_SCRIPT.match(text):
        return "NOPERM"
    found = _CODE.match(text)
    return found[0] if found is not None else "ERR"


def code_of(error: BaseException) -> str | None:
    """Return the code of an error reply, also of one that redis-py has read; None if `error` is none."""
    if isinstance(error, ErrorReply):
        return error.code
    code: Any = getattr(error, "status_code", None)  # redis-py strips it from the texts of the errors that it knows
    if isinstance(code, str):
        return code
    return _code(str(error)) if isinstance(error, ResponseError) else None


def failed_reply(error: ErrorReply) -> StoreUnavailable:
    """Return what the caller of a command gets for an error reply."""
    text = reply_text(error)
    return StoreDefect(text) if error.code in DEFECTS else StoreRefused(error.code, text)


def failed_connection(error: BaseException) -> StoreUnavailable:
    """Return the failure of everything that a connection carried, or would have carried."""
    if isinstance(error, StoreUnavailable):
        return error
    code = code_of(error)
    if code is None or code in DEFECTS:
        return StoreUnavailable(describe(error))
    return StoreRefused(code, describe(error))


def reply_text(reply: BaseException) -> str:
    """Return the text of an error reply, without the arguments that it quotes of an unknown command."""
    if code_of(reply) in ("MOVED", "ASK"):
        return "this server is a member of a Cluster: its URL has to begin with redis+cluster:// or rediss+cluster://"
    return str(reply).partition(", with args")[0]


def describe(error: BaseException) -> str:
    """Return the type and the text of an exception, without the text where that quotes what was received."""
    if isinstance(error, InvalidResponse):
        return type(error).__name__
    if isinstance(error, ErrorReply) or code_of(error) == "MOVED":
        return reply_text(error)
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
