"""Claims that a client proves with a login, the same for both protocol versions."""

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
    """The client holds this key and asks for this session handle. The directory has the key's owner."""

    pubkey: bytes
    session: str


class RegistrationClaim(msgspec.Struct, frozen=True):
    """The client holds this key and asks for this username. All three names are valid; nothing is stored yet."""

    user: str
    machine: str
    pubkey: bytes
    session: str
    invite: str | None = None


def timed_out() -> Refusal:
    return Refusal(Code.UNAUTHORIZED, "handshake timed out")


def unknown_key() -> Refusal:
    """Return the refusal of a key that is proven and not enrolled."""
    return Refusal(Code.UNAUTHORIZED, "unknown machine key")
