"""Exceptions as logs show them: their type and frames, without text that may hold a secret.

The text of an exception may quote the value that was being handled: a body, a token, a key. Three kinds of text are
safe: an OSError's comes from the system, Python's about a missing name consists of names in the code, and the errors of
this project quote values in a way that can be cut out.
"""

import re
import traceback
from typing import Any

from conclave.errors import ConclaveError

RedactedError = dict[str, Any]
"""`type`, `message` if it is safe, `frames` from the outermost to the innermost, `cause` and `group` if any."""

_QUOTED = re.compile(r"[`'\"].*[`'\"]", re.DOTALL)
_FRAMES = 40
_DEPTH = 8
_GROUP = 8
_ABOUT_NAMES = (AttributeError, NameError, ImportError)


def redact(error: BaseException, depth: int = _DEPTH) -> RedactedError:
    """Describe an exception, its causes and its group's members, up to 8 levels deep."""
    redacted: RedactedError = {"type": type(error).__qualname__}
    if (message := safe_message(error)) is not None:
        redacted["message"] = message
    frames = traceback.extract_tb(error.__traceback__)[-_FRAMES:]
    redacted["frames"] = [f"{frame.filename}:{frame.lineno} in {frame.name}" for frame in frames]
    if depth > 0:
        cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
        if cause is not None:
            redacted["cause"] = redact(cause, depth - 1)
        if isinstance(error, BaseExceptionGroup):
            redacted["group"] = [redact(each, depth - 1) for each in error.exceptions[:_GROUP]]
    return redacted


def safe_message(error: BaseException) -> str | None:
    """Return the text of an exception without quoted values, or None if it may hold a secret."""
    if isinstance(error, OSError):
        return error.strerror
    if isinstance(error, ConclaveError):
        return redact_quotes(str(error))
    return str(error) if isinstance(error, _ABOUT_NAMES) else None


def redact_quotes(text: str) -> str:
    """Replace everything from the first quotation mark to the last one.

    An answer to a peer may repeat what it sent, for example a key in the place of a name; a log does not.
    """
    return _QUOTED.sub("`…`", text)


def format_lines(error: RedactedError) -> list[str]:
    """Return the lines of a readable traceback, the first cause on top."""
    lines = [*format_lines(error["cause"]), "which led to"] if "cause" in error else []
    lines += [f"  at {frame}" for frame in error["frames"]]
    lines.append(f"{error['type']}: {error['message']}" if "message" in error else error["type"])
    for member in error.get("group", ()):
        lines += ["of which one is", *(f"  {line}" for line in format_lines(member))]
    return lines
