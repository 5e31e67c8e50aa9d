"""The messages of protocol v1. `Frame` is the table: a type's position in it is its number on the wire.

Fields are on the wire in their order here, and their annotations say how each is encoded.
"""

import re
import typing

import msgspec

from conclave.model import AuditEntry, ChannelInfo, InviteInfo, MachineInfo, Payload, SessionPath
from conclave.protocol.v1.admin import AdminOp
from conclave.protocol.v1.bincode import U32, Appended, Encoded


class RawPayload(Encoded, frozen=True):
    """A payload that `encode_payload` has encoded. It goes into a frame unchanged, so a relay never decodes it.

    Only encoders use it. A decoded frame has a Plain or a Sealed.
    """


class HistoryMessage(msgspec.Struct, frozen=True):
    """A retained message; `ts_ms` is Unix time in milliseconds."""

    from_: SessionPath
    ts_ms: int
    payload: Payload | RawPayload


# --- The content of an Error frame ---


class VersionMismatch(msgspec.Struct, frozen=True):
    """`ours` is the server's version, `theirs` the client's."""

    ours: U32
    theirs: U32


class MalformedFrame(msgspec.Struct, frozen=True):
    message: str


class Unauthorized(msgspec.Struct, frozen=True):
    message: str


class NotFound(msgspec.Struct, frozen=True):
    message: str


class Internal(msgspec.Struct, frozen=True):
    message: str


ProtocolError = VersionMismatch | MalformedFrame | Unauthorized | NotFound | Internal


# --- The handshake ---


class Hello(msgspec.Struct, frozen=True):
    """The first frame of a connection, from the client."""

    protocol_version: U32
    session: str


class Challenge(msgspec.Struct, frozen=True):
    """The bytes that the client signs, and nothing else."""

    nonce: bytes


class Auth(msgspec.Struct, frozen=True):
    pubkey: bytes
    signature: bytes


class Established(msgspec.Struct, frozen=True):
    path: SessionPath


class Register(msgspec.Struct, frozen=True):
    """Claims a username for a key. Auth follows immediately; nothing is answered in between."""

    username: str
    machine: str
    pubkey: bytes
    invite: Appended = None
    """Required by a relay with registration by invite; the original ignores it."""


# --- Requests, their replies, and events ---


class Join(msgspec.Struct, frozen=True):
    channel: str
    token: str | None = None


class Leave(msgspec.Struct, frozen=True):
    channel: str


class Who(msgspec.Struct, frozen=True):
    """None asks for the whole server."""

    channel: str | None = None


class Admin(msgspec.Struct, frozen=True):
    op: AdminOp


class ChannelMsg(msgspec.Struct, frozen=True):
    """A post, in both directions. A server replaces the client's `from_` by the authenticated path."""

    channel: str
    from_: SessionPath
    payload: Payload | RawPayload


class Whisper(msgspec.Struct, frozen=True):
    """A message to one session, in both directions. `from_` is as in ChannelMsg."""

    from_: SessionPath
    target: SessionPath
    payload: Payload | RawPayload


class Presence(msgspec.Struct, frozen=True):
    channel: str | None
    sessions: tuple[SessionPath, ...]


class Error(msgspec.Struct, frozen=True):
    error: ProtocolError


class ListChannels(msgspec.Struct, frozen=True):
    pass


class ChannelList(msgspec.Struct, frozen=True):
    channels: tuple[ChannelInfo, ...]


class Joined(msgspec.Struct, frozen=True):
    channel: str


class Ack(msgspec.Struct, frozen=True):
    detail: str | None = None


class InviteToken(msgspec.Struct, frozen=True):
    token: str


class Ping(msgspec.Struct, frozen=True):
    pass


class Pong(msgspec.Struct, frozen=True):
    pass


class ServerInfo(msgspec.Struct, frozen=True):
    """Sent once, after Established."""

    admin: bool


class ListMachines(msgspec.Struct, frozen=True):
    pass


class MachineList(msgspec.Struct, frozen=True):
    machines: tuple[MachineInfo, ...]


class ListUsers(msgspec.Struct, frozen=True):
    pass


class UserList(msgspec.Struct, frozen=True):
    users: tuple[str, ...]


class InviteList(msgspec.Struct, frozen=True):
    invites: tuple[InviteInfo, ...]


class ReadSince(msgspec.Struct, frozen=True):
    """`since_ms` is Unix time in milliseconds."""

    channel: str
    since_ms: int


class History(msgspec.Struct, frozen=True):
    channel: str
    messages: tuple[HistoryMessage, ...]


class AuditList(msgspec.Struct, frozen=True):
    """Admin operations, oldest first. The original does not have this frame; it is sent only as a reply."""

    entries: tuple[AuditEntry, ...]


# In wire order. New frames are appended; none ever moves.
Frame = (
    Hello
    | Challenge
    | Auth
    | Established
    | Register
    | Join
    | Leave
    | Who
    | Admin
    | ChannelMsg
    | Whisper
    | Presence
    | Error
    | ListChannels
    | ChannelList
    | Joined
    | Ack
    | InviteToken
    | Ping
    | Pong
    | ServerInfo
    | ListMachines
    | MachineList
    | ListUsers
    | UserList
    | InviteList
    | ReadSince
    | History
    | AuditList
)

_KINDS = {
    type_: re.sub(r"(?<!^)(?=[A-Z])", "_", type_.__name__.removesuffix("Op")).lower()
    for type_ in (*typing.get_args(Frame), *typing.get_args(AdminOp))
}


def kind(frame: Frame) -> str:
    """Return a frame's name for traces: `channel_msg`. An Admin frame has that of its operation: `create_channel`."""
    return _KINDS[type(frame.op if isinstance(frame, Admin) else frame)]
