"""What a protocol version looks like from inside the node."""

from typing import Protocol

from conclave.errors import Refusal
from conclave.model import SessionPath
from conclave.protocol.credentials import LoginClaim, RegistrationClaim
from relay.model.close_reason import CloseReason
from relay.model.message import Message
from relay.redis.inbox import Whisper
from relay.services.context import RequestContext

Received = bytes | str
"""A message as it came in: binary or text."""


class Handshake(Protocol):
    """The login with one peer, as far as its bytes are concerned."""

    def receive(self, data: Received) -> bytes | LoginClaim | RegistrationClaim:
        """Take the peer's next message: what it claims once that is proven, else the frames that answer it, if any.

        Raises:
            Refusal: the login has failed.
        """


class IncomingRequest(Protocol):
    """One request of a session."""

    async def answer(self, desk: RequestContext) -> bytes:
        """Carry the request out and return its reply as a frame.

        Raises:
            Refusal: if it was refused, is no request, or cannot be read.
        """

    def refused(self, refusal: Refusal) -> bytes:
        """Return the reply that says why it was not carried out, as a frame."""


class Codec(Protocol):
    """Reads and writes WebSocket messages of one protocol version. There is one object of it per node."""

    subprotocol: str | None
    """What a client asks for in its upgrade to have this version; None for those who ask for nothing."""
    text: bool
    """Whether its messages are text. A binary message in a text protocol breaks it; the other way round it is nothing
    at all."""

    def handshake(self, cluster: str, node: str) -> Handshake:
        """Begin the login with one peer."""

    def welcome(self, path: SessionPath, *, admin: bool) -> bytes:
        """Encode the answer to a login that succeeded."""

    def turned_away(self, refusal: Refusal) -> bytes:
        """Encode the answer to a login that failed, its WebSocket close frame included."""

    def call(self, data: Received) -> IncomingRequest:
        """Read a session's next message.

        Raises:
            FrameError: if the peer does not speak this protocol at all: the session ends.
        """

    def message(self, channel: str, message: Message) -> bytes:
        """Encode a channel's message: once for all sessions that speak this dialect."""

    def whisper(self, whisper: Whisper) -> bytes: ...

    def left(self, channel: str, reason: str) -> bytes | None:
        """Encode that a session has lost a channel: kicked, banned, removed, private, deleted or revoked."""

    def renamed(self, old: str, new: str) -> bytes | None:
        """Encode that a channel has a new name."""

    def gap(self, channel: str, after: str) -> bytes | None:
        """Encode that messages of a channel, those after `after` and before the next one, are lost."""

    def closing(self, reason: CloseReason) -> bytes:
        """Encode the last words of a connection, its WebSocket close frame included."""
