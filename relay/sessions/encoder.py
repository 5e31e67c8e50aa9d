"""The encoder of a session's events, as its protocol version provides it."""

from typing import Protocol

from relay.model.close_reason import CloseReason
from relay.model.message import Message
from relay.redis.signals import Whisper


class EventEncoder(Protocol):
    """Encodes events of one protocol version. There is one object per version and node, shared by its sessions.

    None stands for an event that the version does not have.
    """

    def message(self, channel: str, message: Message) -> bytes:
        """Encode a channel's message. The frame is the same for every session of this version."""

    def whisper(self, whisper: Whisper) -> bytes: ...

    def left(self, channel: str, reason: str) -> bytes | None:
        """Encode that the session has lost a channel: kicked, banned, removed, private, deleted or revoked."""

    def renamed(self, old: str, new: str) -> bytes | None: ...

    def gap(self, channel: str, after: str) -> bytes | None:
        """Encode that messages of a channel are lost: those after `after` and before the next one."""

    def closing(self, reason: CloseReason) -> bytes:
        """Encode the end of a session: the reason, if the version has an event for it, and a WebSocket close frame."""
