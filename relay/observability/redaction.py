"""Exceptions as logs show them: where, and of what type, but not what they say.

The text of an exception may quote what was being handled: a body, a token, a key. It is shown only where it is known
not to: our own errors are written for a reader and quote in a way that can be cut out, an OSError's text is the
system's, and what Python says about a missing name is made of names in the code.
"""

import re
import traceback
from typing import Any

from conclave.errors import ConclaveError

RedactedError = dict[str, Any]
"""`type`, `message` if it can be shown, `frames` from the outermost to the innermost, `cause` and `group` if any."""

_QUOTED = re.compile(r"[`'\"].*[`'\"]", re.DOTALL)
_FRAMES = 40
_DEPTH = 8
_GROUP = 8
_OF_NAMES = (AttributeError, NameError, ImportError)


def describe(error: BaseException, depth: int = _DEPTH) -> RedactedError:
    """Describe an exception, what caused it and what it is a group of, each as deep as is useful."""
    fault: RedactedError = {"type": type(error).__qualname__}
    if (message := shown(error)) is not None:
        fault["message"] = message
    frames = traceback.extract_tb(error.__traceback__)[-_FRAMES:]
    fault["frames"] = [f"{frame.filename}:{frame.lineno} in {frame.name}" for frame in frames]
    if depth > 0:
        cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
        if cause is not None:
            fault["cause"] = describe(cause, depth - 1)
        if isinstance(error, BaseExceptionGroup):
            fault["group"] = [describe(each, depth - 1) for each in error.exceptions[:_GROUP]]
    return fault


def shown(error: BaseException) -> str | None:
    """Return what an exception says, if that can be shown."""
    if isinstance(error, OSError):
        return error.strerror
    if isinstance(error, ConclaveError):
        return unquoted(str(error))
    return str(error) if isinstance(error, _OF_NAMES) else None


def unquoted(text: str) -> str:
    """Leave out what a sentence of ours quotes, from the first quotation mark to the last.

    A peer that sends its key where its name should be is told so in words that repeat it; a log does not.
    """
    return _QUOTED.sub("`…`", text)


def lines(fault: RedactedError) -> list[str]:
    """Write a fault as lines for a reader, what came first on top."""
    out = [*lines(fault["cause"]), "which led to"] if "cause" in fault else []
    out += [f"  at {frame}" for frame in fault["frames"]]
    out.append(f"{fault['type']}: {fault['message']}" if "message" in fault else fault["type"])
    for each in fault.get("group", ()):
        out += ["of which one is", *(f"  {line}" for line in lines(each))]
    return out
