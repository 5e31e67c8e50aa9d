"""The data model: session paths, visibility, payloads, and the rows of listings."""

import enum
from typing import Self

import msgspec

from conclave.errors import InvalidName
from conclave.names import NameKind, check_name
from conclave.text import shortened

PROTOCOL_VERSION = 1
"""The version in a v1 Hello; compatibility is strict equality."""


class SessionPath(msgspec.Struct, frozen=True):
    """The address of a live connection: `user/machine/session`."""

    user: str
    machine: str
    session: str

    def __str__(self) -> str:
        return f"{self.user}/{self.machine}/{self.session}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `user/machine/session`.

        Raises:
            InvalidName: unless there are exactly three parts and each is a valid name.
        """
        parts = text.split("/")
        if len(parts) != 3:  # noqa: PLR2004 - the three parts of a path
            raise InvalidName(f"invalid session path: `{shortened(text)}` (expected `user/machine/session`)")
        return cls(
            check_name(NameKind.USER, parts[0]),
            check_name(NameKind.MACHINE, parts[1]),
            check_name(NameKind.SESSION, parts[2]),
        )


class Visibility(enum.Enum):
    """The visibility of a channel: to all users, to all users who know its name, or to its members only."""

    PUBLIC = "public"
    UNLISTED = "unlisted"
    PRIVATE = "private"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a visibility token; case matters.

        Raises:
            ValueError: with the text that the original prints.
        """
        try:
            return cls(text)
        except ValueError:
            raise ValueError(f"unknown visibility tier `{text}` (expected public, unlisted, or private)") from None


class Plain(msgspec.Struct, frozen=True):
    """A message body in clear text. It may be empty."""

    text: str


class Sealed(msgspec.Struct, frozen=True):
    """A message body that only its recipients can open: relayed and stored unchanged, never interpreted."""

    ciphertext: bytes
    key_id: str | None = None


Payload = Plain | Sealed


class ChannelInfo(msgspec.Struct, frozen=True):
    """A channel as its listing shows it to one user; `member` tells if that user is in the channel's ACL."""

    name: str
    visibility: Visibility
    member: bool


class MachineInfo(msgspec.Struct, frozen=True):
    """An enrolled machine: its public key as unpadded base64url, and when it was added (RFC 3339)."""

    name: str
    pubkey: str
    added_at: str


class AuditEntry(msgspec.Struct, frozen=True):
    """An admin operation: its time (RFC 3339), the acting session, the operation, its target and its outcome."""

    at: str
    actor: str
    operation: str
    target: str
    outcome: str


class InviteInfo(msgspec.Struct, frozen=True):
    """An outstanding invite; None means without a limit, `expires_at` is RFC 3339."""

    token: str
    uses_remaining: int | None
    expires_at: str | None
