"""Requests of a session and their results, for both protocol versions.

A request names the type of its result, so `link.request(Who())` is a `Sessions`. In v2 a request is this struct as a
JSON object with an `id`, and its result this struct as a JSON object with the same number as `re`. v1 has frames for
them (`conclave.protocol.v1.operations`), without some of the optional fields.

Session paths are texts here, `user/machine/session`. The server checks them.
"""

import typing
from functools import cache
from typing import Generic, TypeVar

import msgspec

from conclave.model import AuditEntry, InviteInfo, MachineInfo, Visibility
from conclave.protocol.body import Body

# --- Results ---


class Done(msgspec.Struct, frozen=True):
    """Done, with no result."""


class Joined(msgspec.Struct, frozen=True, omit_defaults=True):
    """The session receives the channel from `position` on, and with `since` also the messages between the two.

    `recovered` answers `since`: true if the log has all of those; if not, a Gap event stands in the place of the lost
    ones. `admin` is true if the caller administers the channel. A v1 server tells none of the three.
    """

    channel: str
    position: str | None = None
    recovered: bool | None = None
    admin: bool | None = None


class OnChannel(msgspec.Struct, frozen=True):
    """Done. This is the channel's name now."""

    channel: str


class OnUser(msgspec.Struct, frozen=True):
    user: str


class OnTarget(msgspec.Struct, frozen=True):
    target: str


class OnMachine(msgspec.Struct, frozen=True):
    machine: str


class Token(msgspec.Struct, frozen=True):
    """The token of an invite that was created or revoked."""

    token: str


class Sent(msgspec.Struct, frozen=True, omit_defaults=True):
    """The id of the message, and its time (Unix milliseconds). A v1 server tells neither."""

    id: str | None = None
    ts: int | None = None


class Sessions(msgspec.Struct, frozen=True):
    """The paths of live sessions."""

    sessions: tuple[str, ...]


class ChannelRow(msgspec.Struct, frozen=True, omit_defaults=True):
    """A channel in a listing. `member`: the user is in its ACL.

    `joined`: this session has joined it; `admin`: the user administers it. A v1 server tells neither.
    """

    name: str
    visibility: Visibility
    member: bool
    joined: bool | None = None
    admin: bool | None = None


class Channels(msgspec.Struct, frozen=True):
    channels: tuple[ChannelRow, ...]


class Row(msgspec.Struct, frozen=True):
    """A retained message. `id` is its position in the channel, `ts` Unix milliseconds."""

    id: str
    ts: int
    from_: str = msgspec.field(name="from")
    body: Body


class Page(msgspec.Struct, frozen=True, omit_defaults=True):
    """Retained messages, oldest first. `more`: there are more in the direction of the request.

    `lost`: messages between the position of the request and the first one here are gone, trimmed or lost in a failover.
    `gaps`: in a page of the newest messages, those after which messages are lost. A v1 server tells neither.
    """

    messages: tuple[Row, ...]
    more: bool
    lost: bool = False
    gaps: tuple[str, ...] = ()


class Machines(msgspec.Struct, frozen=True):
    machines: tuple[MachineInfo, ...]


class Users(msgspec.Struct, frozen=True):
    """Usernames: all users of the server, the members of a channel, or the users banned from it."""

    users: tuple[str, ...]


class Invites(msgspec.Struct, frozen=True):
    invites: tuple[InviteInfo, ...]


class Trail(msgspec.Struct, frozen=True):
    """Admin operations, oldest first."""

    entries: tuple[AuditEntry, ...]


# --- Requests ---

R_co = TypeVar("R_co", covariant=True)


class Request(msgspec.Struct, Generic[R_co], frozen=True, tag_field="op", omit_defaults=True):
    """A request whose reply is an `R`, or a Refusal."""


class Ping(Request[Done], frozen=True, tag="ping"):
    pass


class Join(Request[Joined], frozen=True, tag="join"):
    """Join a channel; with `since`, receive also everything in it after that position."""

    channel: str
    token: str | None = None
    since: str | None = None


class Leave(Request[OnChannel], frozen=True, tag="leave"):
    channel: str


class Who(Request[Sessions], frozen=True, tag="who"):
    """List the sessions in a channel, or on the whole server."""

    channel: str | None = None


class ListChannels(Request[Channels], frozen=True, tag="channels"):
    pass


class Send(Request[Sent], frozen=True, tag="send"):
    """Post a message. With an idempotency `key`, one that was posted already is not posted again."""

    channel: str
    body: Body
    key: str | None = None


class Whisper(Request[Sent], frozen=True, tag="whisper"):
    """Send a message to one session. `key` is as in Send."""

    to: str
    body: Body
    key: str | None = None


class History(Request[Page], frozen=True, tag="history"):
    """Read messages: the oldest ones after a position, or the newest ones before one. Positions are exclusive.

    `after_ts` (Unix milliseconds) replaces `after` where a time is known and no position. Without any of them, the
    newest messages of all. A v1 server reads forwards only, and the request is refused without `after` and `after_ts`.
    """

    channel: str
    after: str | None = None
    after_ts: int | None = None
    before: str | None = None
    limit: int | None = None


class ListMachines(Request[Machines], frozen=True, tag="machines"):
    pass


class ListUsers(Request[Users], frozen=True, tag="users"):
    pass


class ChannelCreate(Request[OnChannel], frozen=True, tag="channel.create"):
    channel: str
    visibility: Visibility = Visibility.PUBLIC


class ChannelDelete(Request[OnChannel], frozen=True, tag="channel.delete"):
    channel: str


class ChannelRename(Request[OnChannel], frozen=True, tag="channel.rename"):
    channel: str
    to: str


class ChannelVisibility(Request[OnChannel], frozen=True, tag="channel.visibility"):
    channel: str
    visibility: Visibility


class AclAdd(Request[OnUser], frozen=True, tag="acl.add"):
    channel: str
    user: str


class AclRemove(Request[OnUser], frozen=True, tag="acl.remove"):
    channel: str
    user: str


class AclList(Request[Users], frozen=True, tag="acl.list"):
    channel: str


class AclPromote(Request[OnUser], frozen=True, tag="acl.promote"):
    channel: str
    user: str


class AclDemote(Request[OnUser], frozen=True, tag="acl.demote"):
    channel: str
    user: str


class InviteCreate(Request[Token], frozen=True, tag="invite.create"):
    """`expires_in` is in seconds; None means without a limit."""

    channel: str
    uses: int | None = None
    expires_in: int | None = None


class InviteRevoke(Request[Token], frozen=True, tag="invite.revoke"):
    token: str


class InviteList(Request[Invites], frozen=True, tag="invite.list"):
    channel: str


class Kick(Request[OnTarget], frozen=True, tag="kick"):
    """`target` is a path or a username; the server tells them apart."""

    channel: str
    target: str


class Ban(Request[OnUser], frozen=True, tag="ban"):
    channel: str
    user: str


class Unban(Request[OnUser], frozen=True, tag="unban"):
    channel: str
    user: str


class Bans(Request[Users], frozen=True, tag="bans"):
    channel: str


class UserRemove(Request[OnUser], frozen=True, tag="user.remove"):
    user: str


class MachineAdd(Request[OnMachine], frozen=True, tag="machine.add"):
    """`pubkey` is base64url without padding."""

    machine: str
    pubkey: str


class MachineRemove(Request[OnMachine], frozen=True, tag="machine.remove"):
    """`user` is another account, for admins of the server. Without it, the caller's own."""

    machine: str
    user: str | None = None


class ServerInviteCreate(Request[Token], frozen=True, tag="server_invite.create"):
    """Create an invite to register with. `expires_in` is in seconds; None means without a limit."""

    uses: int | None = None
    expires_in: int | None = None


class Audit(Request[Trail], frozen=True, tag="audit"):
    """List the newest admin operations, `limit` of them at most (100 by default)."""

    limit: int | None = None


@cache
def result_type(request: type[Request[R_co]]) -> type[R_co]:
    """Return the type of a request's result, as its base names it."""
    (base,) = request.__orig_bases__  # type: ignore[attr-defined] # typing puts it there
    (result,) = typing.get_args(base)
    return typing.cast("type[R_co]", result)
