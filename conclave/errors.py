"""What can go wrong, as one tree.

ConclaveError
├── Refusal        a request was understood and refused; its text goes to the peer as it stands
├── FrameError     bytes that are not a frame of the protocol
├── InvalidName    a name that breaks the rules of `conclave.names`
├── KeyFileError   the machine's key cannot be read or written
├── ConfigError    the local configuration cannot be read or written
└── LinkError      no working connection to a relay
"""

import enum


class ConclaveError(Exception):
    """Base of everything that this project raises on purpose. Its text is fit for a user."""


class Code(enum.Enum):
    """Why a request was refused. The values are the codes of protocol v2."""

    MALFORMED = "malformed"
    VERSION = "version"
    UNAUTHORIZED = "unauthorized"
    NOT_FOUND = "not_found"
    CONFLICT = "conflict"
    TOO_LARGE = "too_large"
    RATE_LIMITED = "rate_limited"
    UNAVAILABLE = "unavailable"
    INTERNAL = "internal"


class Refusal(ConclaveError):
    """A refused request: a machine-readable code and the sentence that the user sees.

    `retry_after` is after how many seconds it is worth asking again, where that is known.
    """

    def __init__(self, code: Code, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.retry_after = retry_after


class FrameError(ConclaveError):
    """Bytes that are not a frame of the protocol."""


class InvalidName(ConclaveError):
    """A name that breaks the rules; the text is `invalid {kind}: `{value}`` and the rule that it breaks."""


class KeyFileError(ConclaveError):
    """The machine's key cannot be read or written."""


class ConfigError(ConclaveError):
    """The local configuration cannot be read or written."""


class LinkError(ConclaveError):
    """No working connection to a relay: it cannot be reached, does not answer in time, or went away."""
