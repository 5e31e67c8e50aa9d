"""Requests as v1's frames, and its replies as results: one row for each request but History (`.history`).

v1 has no words for some optional fields. `Send.key` and `Whisper.key` are left out, so a message that is sent again is
posted again; `Join.since` is left out, and `Joined.recovered` stays None. What would do something else without a field
is refused here, before anything is sent: `MachineRemove.user`, and `History.before`.
"""

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import msgspec

from conclave.errors import Code, InvalidKey, Refusal
from conclave.machine.keys import parse_public_key
from conclave.model import SessionPath
from conclave.protocol import requests
from conclave.protocol.body import payload_of
from conclave.protocol.v1 import admin, frames

_AUDIT_ROWS = 100
"""How many rows of the audit trail are asked for if the request leaves it open."""


class Form(msgspec.Struct, frozen=True):
    """How v1 says one kind of request: the frame that a session sends, the type of the reply, and its meaning.

    The functions take the request; `frame` also takes the session's own path, and raises Refusal for what v1 cannot
    say; `result` also takes the reply.
    """

    frame: Callable[[Any, SessionPath], frames.Frame]
    reply: type[Any]
    result: Callable[[Any, Any], Any]


class PendingRequest(Protocol):
    """A request under way: what to send for it, and what comes of the replies."""

    @property
    def reply(self) -> type[Any]:
        """The type of every reply."""
        ...

    def frame(self) -> frames.Frame:
        """Return what to send now. Raises: Refusal, for what v1 cannot say."""
        ...

    def receive(self, reply: Any) -> Any:
        """Take the reply to that and return the result, or None if `frame` has more to ask before there is one."""
        ...


class SingleRequest:
    """A request that is one frame and gets one reply."""

    def __init__(self, request: requests.Request[Any], me: SessionPath) -> None:
        self._request = request
        self._me = me
        self._form = FORMS[type(request)]
        self.reply = self._form.reply

    def frame(self) -> frames.Frame:
        return self._form.frame(self._request, self._me)

    def receive(self, reply: Any) -> Any:
        return self._form.result(self._request, reply)


_Q = TypeVar("_Q", bound=requests.Request[Any])
_F = TypeVar("_F", bound=frames.Frame)
_Row = tuple[type[requests.Request[Any]], Form]


def _said(
    type_: type[_Q], frame: Callable[[_Q, SessionPath], frames.Frame], reply: type[_F], result: Callable[[_Q, _F], Any]
) -> _Row:
    return type_, Form(frame, reply, result)


def _asked(
    type_: type[_Q], operation: Callable[[_Q], admin.AdminOp], reply: type[_F], result: Callable[[_Q, _F], Any]
) -> _Row:
    """Make the row of an admin operation."""
    return type_, Form(lambda request, _: frames.Admin(operation(request)), reply, result)


def _done(
    type_: type[_Q], operation: Callable[[_Q], admin.AdminOp], result: Callable[[str], Any], of: Callable[[_Q], str]
) -> _Row:
    """Make the row of an admin operation that is acknowledged with a name, or without one: then it is `of`'s."""
    return _asked(type_, operation, frames.Ack, lambda request, ack: result(ack.detail or of(request)))


def _path(text: str) -> SessionPath:
    parts = text.split("/")
    if len(parts) != 3:  # noqa: PLR2004 - the three parts of a path
        raise Refusal(Code.MALFORMED, f"invalid session path: `{text}` (expected `user/machine/session`)")
    return SessionPath(*parts)


def _machine_add(request: requests.MachineAdd) -> admin.MachineAdd:
    try:
        return admin.MachineAdd(request.machine, parse_public_key(request.pubkey))
    except InvalidKey as error:
        raise Refusal(Code.MALFORMED, str(error)) from None


def _machine_remove(request: requests.MachineRemove) -> admin.MachineRemove:
    if request.user is not None:
        raise Refusal(Code.MALFORMED, "this server cannot remove a machine of somebody else's account")
    return admin.MachineRemove(request.machine)


def _sessions(_: requests.Who, reply: frames.Presence) -> requests.Sessions:
    return requests.Sessions(tuple(map(str, reply.sessions)))


def _channels(_: requests.ListChannels, reply: frames.ChannelList) -> requests.Channels:
    rows = (requests.ChannelRow(row.name, row.visibility, row.member) for row in reply.channels)
    return requests.Channels(tuple(rows))


_TALK = (
    _said(requests.Ping, lambda _, __: frames.Ping(), frames.Pong, lambda _, __: requests.Done()),
    _said(
        requests.Join,
        lambda q, _: frames.Join(q.channel, q.token),
        frames.Joined,
        lambda _, reply: requests.Joined(reply.channel),
    ),
    _said(
        requests.Leave,
        lambda q, _: frames.Leave(q.channel),
        frames.Ack,
        lambda q, ack: requests.OnChannel(ack.detail or q.channel),
    ),
    _said(
        requests.Send,
        lambda q, me: frames.ChannelMsg(q.channel, me, payload_of(q.body)),
        frames.Ack,
        lambda _, __: requests.Sent(),
    ),
    _said(
        requests.Whisper,
        lambda q, me: frames.Whisper(me, _path(q.to), payload_of(q.body)),
        frames.Ack,
        lambda _, __: requests.Sent(),
    ),
    _said(requests.Who, lambda q, _: frames.Who(q.channel), frames.Presence, _sessions),
    _said(requests.ListChannels, lambda _, __: frames.ListChannels(), frames.ChannelList, _channels),
    _said(
        requests.ListMachines,
        lambda _, __: frames.ListMachines(),
        frames.MachineList,
        lambda _, reply: requests.Machines(reply.machines),
    ),
    _said(
        requests.ListUsers,
        lambda _, __: frames.ListUsers(),
        frames.UserList,
        lambda _, reply: requests.Users(reply.users),
    ),
)
_CHANNELS = (
    _done(
        requests.ChannelCreate,
        lambda q: admin.CreateChannel(q.channel, q.visibility),
        requests.OnChannel,
        lambda q: q.channel,
    ),
    _done(requests.ChannelDelete, lambda q: admin.DeleteChannel(q.channel), requests.OnChannel, lambda q: q.channel),
    _done(requests.ChannelRename, lambda q: admin.RenameChannel(q.channel, q.to), requests.OnChannel, lambda q: q.to),
    _done(
        requests.ChannelVisibility,
        lambda q: admin.SetVisibility(q.channel, q.visibility),
        requests.OnChannel,
        lambda q: q.channel,
    ),
)
_PEOPLE = (
    _done(requests.AclAdd, lambda q: admin.AclAdd(q.channel, q.user), requests.OnUser, lambda q: q.user),
    _done(requests.AclRemove, lambda q: admin.AclRemove(q.channel, q.user), requests.OnUser, lambda q: q.user),
    _done(requests.AclPromote, lambda q: admin.AclPromote(q.channel, q.user), requests.OnUser, lambda q: q.user),
    _done(requests.AclDemote, lambda q: admin.AclDemote(q.channel, q.user), requests.OnUser, lambda q: q.user),
    _done(requests.Ban, lambda q: admin.Ban(q.channel, q.user), requests.OnUser, lambda q: q.user),
    _done(requests.Unban, lambda q: admin.Unban(q.channel, q.user), requests.OnUser, lambda q: q.user),
    _done(requests.Kick, lambda q: admin.Kick(q.channel, q.target), requests.OnTarget, lambda q: q.target),
    _asked(
        requests.AclList,
        lambda q: admin.AclList(q.channel),
        frames.UserList,
        lambda _, reply: requests.Users(reply.users),
    ),
    _asked(
        requests.Bans, lambda q: admin.BanList(q.channel), frames.UserList, lambda _, reply: requests.Users(reply.users)
    ),
)
_INVITES = (
    _asked(
        requests.InviteCreate,
        lambda q: admin.InviteCreate(q.channel, q.uses, q.expires_in),
        frames.InviteToken,
        lambda _, reply: requests.Token(reply.token),
    ),
    _asked(
        requests.ServerInviteCreate,
        lambda q: admin.ServerInviteCreate(q.uses, q.expires_in),
        frames.InviteToken,
        lambda _, reply: requests.Token(reply.token),
    ),
    _asked(
        requests.InviteList,
        lambda q: admin.InviteListOp(q.channel),
        frames.InviteList,
        lambda _, reply: requests.Invites(reply.invites),
    ),
    _done(requests.InviteRevoke, lambda q: admin.InviteRevoke(q.token), requests.Token, lambda q: q.token),
)
_ACCOUNTS = (
    _done(requests.UserRemove, lambda q: admin.UserRemove(q.user), requests.OnUser, lambda q: q.user),
    _done(requests.MachineAdd, _machine_add, requests.OnMachine, lambda q: q.machine),
    _done(requests.MachineRemove, _machine_remove, requests.OnMachine, lambda q: q.machine),
    _asked(
        requests.Audit,
        lambda q: admin.Audit(_AUDIT_ROWS if q.limit is None else q.limit),
        frames.AuditList,
        lambda _, reply: requests.Trail(reply.entries),
    ),
)

FORMS: dict[type[requests.Request[Any]], Form] = dict([*_TALK, *_CHANNELS, *_PEOPLE, *_INVITES, *_ACCOUNTS])
