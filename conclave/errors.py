"""Every exception of the project, as one tree. Each package raises the classes of its own module and of this one.

ConclaveError
├── Refusal                    a request was understood and refused; its text goes to the peer unchanged
│   ├── BadRequest             a v2 message that is a JSON object and not a request
│   ├── WrongUrl               a login for another address than the server's own
│   ├── VersionRefusal         client and server speak different versions of the protocol
│   ├── ClosedLogin            a server refused the login and closed the connection with a code
│   ├── StoreUnavailable       Redis does not answer (relay.model.errors)
│   │   ├── StoreRefused       Redis refuses a command for the moment (relay.model.errors)
│   │   ├── StoreOverloaded    too many commands wait for Redis (relay.model.errors)
│   │   └── StoreDefect        a script or a command of the relay is wrong (relay.model.errors)
│   └── Ended                  the session was ended while it logged in (relay.model.close_reason)
├── FrameError                 bytes that are not a message of the protocol
├── Violation                  bytes that are not the WebSocket protocol (relay.transport.frame_reader)
├── InvalidName                a name that breaks the rules of conclave.names
├── InvalidUrl                 a server URL that cannot be dialled
├── InvalidDuration            text that is not a duration
├── InvalidKey                 text or bytes that are not an Ed25519 key
├── KeyFileError               the machine's key cannot be read or written
├── ConfigError                the local configuration cannot be read or written
├── LinkError                  no working connection to a relay
│   ├── UpgradeRefused         the server answered the WebSocket upgrade with another HTTP status
│   ├── LoginRefused           the server refused the login or the registration
│   ├── NotTrusted             another cluster answers than the one that is pinned
│   ├── LinkLost               a connection that was up has ended
│   └── OutOfStep              a reply that does not match the open requests
├── ToolError                  a tool cannot do what it was asked for (bridge.errors)
├── BadArguments               the arguments do not fit the tool (bridge.errors)
├── AboveCeiling               only the owner can grant that permission level (bridge.errors)
├── JoinInProgress             the session is joining that channel already (bridge.errors)
├── NotConnected               there is no connection to the server; nothing was sent (bridge.errors)
├── InDoubt                    the server cannot tell if the request took effect (bridge.errors)
├── SameCluster                two URLs lead to one cluster (bridge.errors)
├── NodeFailure                the node cannot start or go on (relay.model.errors)
├── Unanswered                 a message was sent and nothing tells if it was posted (cli.verbs.send)
├── Rejected                   the server refused a message or a join (cli.verbs.send)
├── NoMetrics                  an answer that is not the metrics of a relay (cli.dashboard.snapshot)
└── InvalidTarget              text that is not the address of nodes (cli.dashboard.targets)
"""

import enum


class ConclaveError(Exception):
    """Base of every exception that the project raises on purpose. Its text is fit for a user."""


# --- Refusals ---


class Code(enum.Enum):
    """The reason of a refusal. The values are the codes of protocol v2."""

    MALFORMED = "malformed"
    VERSION = "version"
    UNAUTHORIZED = "unauthorized"
    NOT_FOUND = "not_found"
    CONFLICT = "conflict"
    TOO_LARGE = "too_large"
    RATE_LIMITED = "rate_limited"
    UNAVAILABLE = "unavailable"
    INTERNAL = "internal"


_KIND_IN_WORDS = {
    Code.MALFORMED: "malformed frame",
    Code.NOT_FOUND: "not found",
    Code.INTERNAL: "internal error",
    Code.TOO_LARGE: "too large",
    Code.RATE_LIMITED: "rate limited",
}


class Refusal(ConclaveError):
    """A refused request: a machine-readable code and the sentence that the user sees.

    `retry_after` is the number of seconds after which a retry makes sense, None where that is not known.
    """

    def __init__(self, code: Code, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.retry_after = retry_after


class BadRequest(Refusal):
    """A JSON object that is not a request; `id` is its number, None if it had none."""

    def __init__(self, request_id: int | None, message: str) -> None:
        super().__init__(Code.MALFORMED, message)
        self.id = request_id


class WrongUrl(Refusal):
    """A login for another address than the server's; `known` are the origins of its public URLs, in order."""

    def __init__(self, known: tuple[str, ...], dialled: str) -> None:
        names = ", ".join(f"`{each}`" for each in known)
        super().__init__(Code.UNAUTHORIZED, f"this relay is reached as {names}, not as `{dialled[:200]}`")
        self.known = known


class VersionRefusal(Refusal):
    """Client and server speak different versions of the protocol; `ours` is the server's."""

    def __init__(self, ours: int, theirs: int) -> None:
        super().__init__(Code.VERSION, f"incompatible protocol version: ours={ours}, theirs={theirs}")
        self.ours = ours
        self.theirs = theirs


class ClosedLogin(Refusal):
    """The refusal of a login that a server closed with a code."""

    def __init__(self, refusal: Refusal, close_code: int) -> None:
        super().__init__(refusal.code, refusal.message, retry_after=refusal.retry_after)
        self.close_code = close_code


def in_words(refusal: Refusal) -> str:
    """Return a refusal as users see it: its kind, then the server's sentence."""
    if refusal.code is Code.VERSION:
        return refusal.message
    kind = _KIND_IN_WORDS.get(refusal.code, refusal.code.value)
    return f"{kind}: {refusal.message}"


# --- Malformed values ---


class FrameError(ConclaveError):
    """Bytes that are not a message of the protocol."""


class InvalidName(ConclaveError):
    """A name that breaks the rules; the text is `invalid {kind}: `{value}`` and the rule that it breaks."""


class InvalidUrl(ConclaveError):
    """A server URL that cannot be dialled."""


class InvalidDuration(ConclaveError):
    """Text that is not a duration; the message is `invalid duration `{text}``."""


class InvalidKey(ConclaveError, ValueError):
    """Text or bytes that are not an Ed25519 key; the message starts with `malformed key or signature: `."""


# --- The machine's files ---


class KeyFileError(ConclaveError):
    """The machine's key cannot be read or written."""


class ConfigError(ConclaveError):
    """The local configuration cannot be read or written."""


# --- Connections ---


class LinkError(ConclaveError):
    """No working connection to a relay: it cannot be reached, does not answer in time, or went away."""


class UpgradeRefused(LinkError):
    """The server answered the WebSocket upgrade with `status`, another one than 101."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class LoginRefused(LinkError):
    """The server answered the login, or the registration, with a refusal; `code` is as in LinkLost."""

    def __init__(self, message: str, refusal: Refusal, *, code: int | None = None) -> None:
        super().__init__(message)
        self.refusal = refusal
        self.code = code

    @property
    def reason(self) -> str:
        """The server's sentence."""
        return self.refusal.message

    @property
    def retry_after(self) -> float | None:
        """The seconds after which to come back, where the server said so."""
        return self.refusal.retry_after


class NotTrusted(LinkError):
    """The server that answers is not proven to be the expected cluster. Nothing was signed for it."""


class LinkLost(LinkError):
    """A connection that was up has ended; `reason` is the server's sentence, None if it gave none.

    `code` is that of the close, None if a v1 server closed, or nobody did; `retry_after` is the number of seconds after
    which to reconnect, None where the server told none.
    """

    def __init__(
        self, message: str, reason: str | None = None, *, code: int | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.code = code
        self.retry_after = retry_after


class OutOfStep(LinkError):
    """A frame that does not answer what was asked, or cannot be read while an answer is due."""
