"""What a peer proves and claims with a login, whatever the version of the protocol it says that in."""

from typing import Protocol

import msgspec

from conclave.errors import Code, Refusal

NONCE_BYTES = 32
SIGNATURE_BYTES = 64


class Signer(Protocol):
    """A machine's key."""

    @property
    def public_key(self) -> bytes: ...

    def sign(self, message: bytes) -> bytes:
        """Return the Ed25519 signature of the message, 64 bytes."""
        ...


class LoginClaim(msgspec.Struct, frozen=True):
    """The peer holds this key and wants this session handle. Whose key it is, the directory knows."""

    pubkey: bytes
    session: str


class RegistrationClaim(msgspec.Struct, frozen=True):
    """The peer holds this key and wants to be this user. All three names are valid; nothing is stored yet."""

    user: str
    machine: str
    pubkey: bytes
    session: str
    invite: str | None = None


def timed_out() -> Refusal:
    return Refusal(Code.UNAUTHORIZED, "handshake timed out")


def unknown_key() -> Refusal:
    """Return the answer to a machine that proved its key where nobody enrolled that key."""
    return Refusal(Code.UNAUTHORIZED, "unknown machine key")
