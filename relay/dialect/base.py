"""What a protocol version looks like from inside the node."""

from typing import Protocol

from conclave.errors import Refusal
from relay.closing import CloseReason
from relay.message import Message
from relay.redis.inbox import Whisper


class Dialect(Protocol):
    """Turns what the node has to say into WebSocket frames of one protocol version. Pure."""

    def message(self, channel: str, message: Message) -> bytes:
        """Encode a channel's message: once for all sessions that speak this dialect."""

    def whisper(self, whisper: Whisper) -> bytes: ...

    def left(self, channel: str, reason: str) -> bytes | None:
        """Encode that a session has lost a channel: kicked, banned, removed, private, deleted or revoked."""

    def renamed(self, old: str, new: str) -> bytes | None:
        """Encode that a channel has a new name."""

    def refusal(self, refusal: Refusal) -> bytes: ...

    def closing(self, reason: CloseReason) -> bytes:
        """Encode the last words of a connection, its WebSocket close frame included."""
