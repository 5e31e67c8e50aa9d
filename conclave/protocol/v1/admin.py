"""The operations of an Admin frame. `AdminOp` is the table: the order of its types is their number on the wire."""

import msgspec

from conclave.model import Visibility
from conclave.protocol.v1.bincode import U32, U64


class CreateChannel(msgspec.Struct, frozen=True):
    name: str
    visibility: Visibility


class DeleteChannel(msgspec.Struct, frozen=True):
    name: str


class RenameChannel(msgspec.Struct, frozen=True):
    name: str
    new_name: str


class SetVisibility(msgspec.Struct, frozen=True):
    name: str
    visibility: Visibility


class AclAdd(msgspec.Struct, frozen=True):
    channel: str
    user: str


class AclRemove(msgspec.Struct, frozen=True):
    channel: str
    user: str


class InviteCreate(msgspec.Struct, frozen=True):
    """None means without a limit."""

    channel: str
    uses: U32 | None = None
    expires_in_secs: U64 | None = None


class InviteRevoke(msgspec.Struct, frozen=True):
    token: str


class Kick(msgspec.Struct, frozen=True):
    """`target` is text: whom it names is for the server to work out."""

    channel: str
    target: str


class Ban(msgspec.Struct, frozen=True):
    channel: str
    user: str


class UserRemove(msgspec.Struct, frozen=True):
    username: str


class MachineRemove(msgspec.Struct, frozen=True):
    name: str


class MachineAdd(msgspec.Struct, frozen=True):
    name: str
    pubkey: bytes


class AclList(msgspec.Struct, frozen=True):
    channel: str


class Unban(msgspec.Struct, frozen=True):
    channel: str
    user: str


class BanList(msgspec.Struct, frozen=True):
    channel: str


class InviteListOp(msgspec.Struct, frozen=True):
    """The question that an InviteList frame answers."""

    channel: str


# --- Of this relay, not of the original: appended, as the protocol's rules of evolution want it ---


class AclPromote(msgspec.Struct, frozen=True):
    channel: str
    user: str


class AclDemote(msgspec.Struct, frozen=True):
    channel: str
    user: str


class ServerInviteCreate(msgspec.Struct, frozen=True):
    """An invite to register with. None means without a limit."""

    uses: U32 | None = None
    expires_in_secs: U64 | None = None


class Audit(msgspec.Struct, frozen=True):
    """The question that an AuditList frame answers; `limit` is the greatest number of entries."""

    limit: U32


# In wire order. New operations are appended; none ever moves.
AdminOp = (
    CreateChannel
    | DeleteChannel
    | RenameChannel
    | SetVisibility
    | AclAdd
    | AclRemove
    | InviteCreate
    | InviteRevoke
    | Kick
    | Ban
    | UserRemove
    | MachineRemove
    | MachineAdd
    | AclList
    | Unban
    | BanList
    | InviteListOp
    | AclPromote
    | AclDemote
    | ServerInviteCreate
    | Audit
)

APPENDED = (AclPromote, AclDemote, ServerInviteCreate, Audit)
"""What an original server does not know. It cannot read such a request and closes the connection without a word."""
