"""The operations of an Admin frame. `AdminOp` is the table: a type's position in it is its number on the wire."""

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
    """`target` is a path or a username; the server tells them apart."""

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
    """Answered with an InviteList frame."""

    channel: str


# --- Operations of this relay that the original does not have, appended as the protocol's rules require ---


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
    """Answered with an AuditList frame; `limit` is the greatest number of entries."""

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
"""Operations that an original server cannot read. It closes the connection without an answer."""
