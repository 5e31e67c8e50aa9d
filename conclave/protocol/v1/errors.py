"""Refusals as Error frames, and Error frames as refusals."""

from conclave.errors import Code, Refusal, VersionRefusal
from conclave.protocol.v1.frames import (
    Error,
    Internal,
    MalformedFrame,
    NotFound,
    ProtocolError,
    Unauthorized,
    VersionMismatch,
)

_Sentence = MalformedFrame | Unauthorized | NotFound | Internal

_MEANING: dict[type[_Sentence], tuple[Code, str]] = {
    MalformedFrame: (Code.MALFORMED, "malformed frame"),
    Unauthorized: (Code.UNAUTHORIZED, "unauthorized"),
    NotFound: (Code.NOT_FOUND, "not found"),
    Internal: (Code.INTERNAL, "internal error"),
}

_BY_CODE: dict[Code, type[_Sentence]] = {
    Code.MALFORMED: MalformedFrame,
    Code.VERSION: MalformedFrame,  # a VersionRefusal says more
    Code.UNAUTHORIZED: Unauthorized,
    Code.NOT_FOUND: NotFound,
    Code.CONFLICT: Unauthorized,
    Code.TOO_LARGE: MalformedFrame,
    Code.RATE_LIMITED: Unauthorized,
    Code.UNAVAILABLE: Internal,
    Code.INTERNAL: Internal,
}


def error_frame(refusal: Refusal) -> Error:
    """Return the frame for a refusal: the nearest of v1's five kinds, with the text unchanged."""
    if isinstance(refusal, VersionRefusal):
        return Error(VersionMismatch(refusal.ours, refusal.theirs))
    return Error(_BY_CODE[refusal.code](refusal.message))


def refusal(error: ProtocolError) -> Refusal:
    """Return the refusal that an error stands for. `error_frame` turns it into the same error again."""
    if isinstance(error, VersionMismatch):
        return VersionRefusal(error.ours, error.theirs)
    code, _ = _MEANING[type(error)]
    return Refusal(code, error.message)


def display(error: ProtocolError) -> str:
    """Return the error as the original's command line prints it: its kind in words, then the message."""
    if isinstance(error, VersionMismatch):
        return refusal(error).message
    _, words = _MEANING[type(error)]
    return f"{words}: {error.message}"
