"""A protocol version as the node sees it: a login, requests in, replies and events out. Codecs are pure."""

from typing import Any, Protocol

from conclave.errors import Refusal
from conclave.model import SessionPath
from conclave.protocol.credentials import LoginClaim, RegistrationClaim
from relay.sessions.encoder import EventEncoder

Received = bytes | str
"""A WebSocket message of a client: binary or text."""


class Handshake(Protocol):
    """The login of one client."""

    def receive(self, data: Received) -> bytes | LoginClaim | RegistrationClaim:
        """Take the client's next message. Returns the frames that answer it, if any, or at last the proven claim.

        Raises:
            Refusal: the login has failed.
        """


class IncomingRequest(Protocol):
    """One request of a session."""

    @property
    def operation(self) -> str:
        """The name of the operation, for traces; known once `decode` has returned."""

    def decode(self) -> Any:
        """Return what is asked: a struct whose type is in `relay.protocol.operations.OPERATIONS`.

        Raises:
            Refusal: the message is not a request, or its fields are invalid.
        """

    def reply(self, result: Any) -> bytes:
        """Encode the result of the operation as a frame."""

    def refused(self, refusal: Refusal) -> bytes:
        """Encode the refusal of the request as a frame."""


class Codec(EventEncoder, Protocol):
    """Reads and writes WebSocket messages of one protocol version. There is one object per version and node."""

    subprotocol: str | None
    """The WebSocket subprotocol by which a client asks for this version; None for clients that offer none."""
    text: bool
    """True if messages are text. A binary message breaks a text protocol; a text message in a binary one is ignored."""

    def handshake(self, cluster: str, node: str) -> Handshake:
        """Begin the login of one client."""

    def login_accepted(self, path: SessionPath, *, admin: bool) -> bytes:
        """Encode the answer to a login that succeeded."""

    def login_refused(self, refusal: Refusal) -> bytes:
        """Encode the answer to a login that failed, with its WebSocket close frame."""

    def decode_request(self, data: Received) -> IncomingRequest:
        """Read a session's next message.

        Raises:
            FrameError: the message is not of this protocol at all, and the session ends.
        """
