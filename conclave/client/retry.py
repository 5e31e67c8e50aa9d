"""The decision to reconnect or to ask again after a failure.

A v2 server closes with a code, which decides; after an unknown code the client reconnects. A v1 server gives only a
text (`conclave.protocol.close_texts`), which decides in the same way.
"""

from conclave.errors import Code, ConclaveError, LinkError, LinkLost, LoginRefused, NotTrusted, Refusal
from conclave.protocol.close_texts import FINAL, SUPERSEDED
from conclave.protocol.v2.close_codes import CloseCode

PASSING = frozenset({Code.INTERNAL, Code.UNAVAILABLE, Code.RATE_LIMITED})
"""The refusals that a later attempt may not meet, without anybody changing anything."""

_FINAL_CODES = frozenset({CloseCode.SUPERSEDED, CloseCode.REVOKED, CloseCode.USER_REMOVED, CloseCode.MALFORMED})
_PASSING_CODES = frozenset({CloseCode.INTERNAL, CloseCode.RESTART, CloseCode.LATER})
_IN_DOUBT = frozenset({Code.INTERNAL, Code.UNAVAILABLE})
_LOGIN_TIMEOUT = "handshake timed out"


def may_retry(error: ConclaveError) -> bool:
    """Tell if the same connection, or request, may succeed later without anybody changing anything."""
    if isinstance(error, Refusal):
        return error.code in PASSING
    if isinstance(error, LinkLost):
        return error.reason not in FINAL if error.code is None else error.code not in _FINAL_CODES
    if isinstance(error, LoginRefused):
        passing = error.refusal.code in PASSING or error.refusal.message == _LOGIN_TIMEOUT
        return passing or error.code in _PASSING_CODES
    return isinstance(error, LinkError) and not isinstance(error, NotTrusted)


def superseded(error: LinkLost | LoginRefused) -> bool:
    """Tell if a newer connection has taken the session's path, whether before or after the login."""
    return error.reason == SUPERSEDED if error.code is None else error.code == CloseCode.SUPERSEDED


def in_doubt(refusal: Refusal) -> bool:
    """Tell if a v2 server that answers so may have carried out the request all the same."""
    return refusal.code in _IN_DOUBT


def not_before(error: ConclaveError) -> float:
    """Return the number of seconds after which the server wants to be asked again, 0 if it gave none."""
    told = error.retry_after if isinstance(error, LinkLost | LoginRefused | Refusal) else None
    return max(0.0, told or 0.0)
