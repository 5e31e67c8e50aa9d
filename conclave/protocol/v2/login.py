"""The messages of the v2 login, and the bytes that a machine signs.

Hello, challenge, then `auth` or `register`, then ready. A machine proves that it holds its key by an Ed25519 signature
over the protocol's name, the purpose, the server's cluster id, the origin that the client dialled, and the nonce. So
an answer to one server's challenge is worth nothing at another server, even if that one passes the challenge on; and a
client that knows a server's cluster id does not answer any other. The server's side is `server_login`, the client's is
`conclave.client.v2.login`.
"""

from typing import Literal

import msgspec

PROTOCOL = 2
"""The version in a hello. Versions are compatible only if they are equal."""

Purpose = Literal["auth", "register"]


def signed_bytes(purpose: Purpose, cluster: str, origin: str, nonce: bytes) -> bytes:
    """Return the bytes that a machine signs: purpose, the server's cluster, the dialled origin, the server's nonce."""
    return f"conclave.v2\n{purpose}\n{cluster}\n{origin}\n".encode() + nonce


class Hello(msgspec.Struct, frozen=True, tag_field="op", tag="hello", omit_defaults=True):
    """The client's first message. `origin` is that of the dialled URL, `client` names the program, for people."""

    protocol: int
    session: str
    origin: str
    client: str | None = None


class Challenge(msgspec.Struct, frozen=True, tag_field="ev", tag="challenge"):
    nonce: str
    cluster: str
    node: str


class Auth(msgspec.Struct, frozen=True, tag_field="op", tag="auth"):
    pubkey: str
    signature: str


class Register(msgspec.Struct, frozen=True, tag_field="op", tag="register", omit_defaults=True):
    """Claims a username for a key; `invite` is for relays that require one."""

    user: str
    machine: str
    pubkey: str
    signature: str
    invite: str | None = None


class Limits(msgspec.Struct, frozen=True):
    message_bytes: int


class Ready(msgspec.Struct, frozen=True, tag_field="ev", tag="ready"):
    """The session is logged in. It should send a ping after `heartbeat` seconds without another message."""

    path: str
    admin: bool
    heartbeat: int
    limits: Limits
