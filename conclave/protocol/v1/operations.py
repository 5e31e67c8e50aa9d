"""Requests and results as frames of v1, and back: one table, read in both directions.

A client turns a request into a frame and the reply into a result; a server turns the frame into a request and the
result into a reply. A row names the four types. Where it says no more, the frame has the fields of the request and the
reply those of the result, in the same order.

Three requests have no row, because they carry message bodies, and the two sides hold those differently: a client
reads and writes bodies (`conclave.client.v1`), a server passes on what it stores (`relay.protocol.v1`). They are Send,
Whisper and History.

v1 cannot express some optional fields. `Join.since` is left out, and `Joined.recovered` stays None. A request that
would mean something else without a field is refused before anything is sent: `MachineRemove.user`.
"""

import typing
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from conclave import base64url
from conclave.errors import Code, InvalidKey, Refusal
from conclave.model import ChannelInfo, SessionPath
from conclave.protocol import requests
from conclave.protocol.requests import Request, result_type
from conclave.protocol.v1 import admin, frames
from conclave.public_key import parse_public_key

AUDIT_ROWS = 100
"""The `limit` of an Audit that leaves it open."""


class Operation(msgspec.Struct, frozen=True):
    """One request in v1: its types, and the conversions between them.

    `frame` is an operation of an Admin frame, or a frame of its own.
    """

    request: type[Any]
    frame: type[Any]
    reply: type[Any]
    to_frame: Callable[[Any], Any]
    """Client: the frame for a request. Raises Refusal for what v1 cannot express."""
    from_frame: Callable[[Any], Any]
    """Server: the request that a frame stands for."""
    to_reply: Callable[[Any, Any], Any]
    """Server: the reply for a request and its result."""
    from_reply: Callable[[Any, Any], Any]
    """Client: the result that a reply to a request stands for."""


_Q = TypeVar("_Q", bound=Request[Any])
_F = TypeVar("_F", bound=msgspec.Struct)
_A = TypeVar("_A", bound=msgspec.Struct)
_T = TypeVar("_T", bound=msgspec.Struct)


def _same_fields(type_: type[_T]) -> Callable[[Any], _T]:
    """Return a conversion to a struct with the same fields in the same order."""
    return lambda struct: type_(*msgspec.structs.astuple(struct))


def _row(
    request: type[_Q],
    frame: type[_F],
    reply: type[_A],
    *,
    to_frame: Callable[[_Q], _F] | None = None,
    from_frame: Callable[[_F], _Q] | None = None,
    to_reply: Callable[[_Q, Any], _A] | None = None,
    from_reply: Callable[[_Q, _A], Any] | None = None,
) -> Operation:
    same_reply, same_result = _same_fields(reply), _same_fields(result_type(request))
    return Operation(
        request,
        frame,
        reply,
        to_frame or _same_fields(frame),
        from_frame or _same_fields(request),
        to_reply or (lambda _, result: same_reply(result)),
        from_reply or (lambda _, answer: same_result(answer)),
    )


def _acknowledged(
    request: type[_Q],
    frame: type[_F],
    *,
    name: str,
    to_frame: Callable[[_Q], _F] | None = None,
    from_frame: Callable[[_F], _Q] | None = None,
) -> Operation:
    """Make the row of a request that is answered with an Ack, whose detail is the only field of the result.

    Some servers leave the detail out: then the result is the request's field `name`.
    """
    result = result_type(request)
    return _row(
        request,
        frame,
        frames.Ack,
        to_frame=to_frame,
        from_frame=from_frame,
        to_reply=lambda _, result: frames.Ack(*msgspec.structs.astuple(result)),
        from_reply=lambda asked, ack: result(ack.detail or getattr(asked, name)),
    )


def path_of(text: str) -> SessionPath:
    """Return the parts of a path that is known to have three. Nothing else about it is checked."""
    return SessionPath(*text.split("/"))


def _machine_key(request: requests.MachineAdd) -> admin.MachineAdd:
    try:
        return admin.MachineAdd(request.machine, parse_public_key(request.pubkey))
    except InvalidKey as error:
        raise Refusal(Code.MALFORMED, str(error)) from None


def _own_machine(request: requests.MachineRemove) -> admin.MachineRemove:
    if request.user is not None:
        raise Refusal(Code.MALFORMED, "this server cannot remove a machine of somebody else's account")
    return admin.MachineRemove(request.machine)


def _channel_list(_: requests.ListChannels, result: requests.Channels) -> frames.ChannelList:
    rows = (ChannelInfo(row.name, row.visibility, row.member) for row in result.channels)
    return frames.ChannelList(tuple(rows))


def _channels(_: requests.ListChannels, reply: frames.ChannelList) -> requests.Channels:
    rows = (requests.ChannelRow(row.name, row.visibility, row.member) for row in reply.channels)
    return requests.Channels(tuple(rows))


_TABLE = (
    _row(requests.Ping, frames.Ping, frames.Pong),
    _row(
        requests.Join,
        frames.Join,
        frames.Joined,
        to_frame=lambda request: frames.Join(request.channel, request.token),
        to_reply=lambda request, _: frames.Joined(request.channel),
    ),
    _acknowledged(requests.Leave, frames.Leave, name="channel"),
    _row(
        requests.Who,
        frames.Who,
        frames.Presence,
        to_reply=lambda request, result: frames.Presence(request.channel, tuple(map(path_of, result.sessions))),
        from_reply=lambda _, reply: requests.Sessions(tuple(map(str, reply.sessions))),
    ),
    _row(requests.ListChannels, frames.ListChannels, frames.ChannelList, to_reply=_channel_list, from_reply=_channels),
    _row(requests.ListMachines, frames.ListMachines, frames.MachineList),
    _row(requests.ListUsers, frames.ListUsers, frames.UserList),
    _acknowledged(requests.ChannelCreate, admin.CreateChannel, name="channel"),
    _acknowledged(requests.ChannelDelete, admin.DeleteChannel, name="channel"),
    _acknowledged(requests.ChannelRename, admin.RenameChannel, name="to"),
    _acknowledged(requests.ChannelVisibility, admin.SetVisibility, name="channel"),
    _acknowledged(requests.AclAdd, admin.AclAdd, name="user"),
    _acknowledged(requests.AclRemove, admin.AclRemove, name="user"),
    _acknowledged(requests.AclPromote, admin.AclPromote, name="user"),
    _acknowledged(requests.AclDemote, admin.AclDemote, name="user"),
    _row(requests.AclList, admin.AclList, frames.UserList),
    _acknowledged(requests.Kick, admin.Kick, name="target"),
    _acknowledged(requests.Ban, admin.Ban, name="user"),
    _acknowledged(requests.Unban, admin.Unban, name="user"),
    _row(requests.Bans, admin.BanList, frames.UserList),
    _row(requests.InviteCreate, admin.InviteCreate, frames.InviteToken),
    _acknowledged(requests.InviteRevoke, admin.InviteRevoke, name="token"),
    _row(requests.InviteList, admin.InviteListOp, frames.InviteList),
    _row(requests.ServerInviteCreate, admin.ServerInviteCreate, frames.InviteToken),
    _acknowledged(requests.UserRemove, admin.UserRemove, name="user"),
    _acknowledged(
        requests.MachineAdd,
        admin.MachineAdd,
        name="machine",
        to_frame=_machine_key,
        from_frame=lambda operation: requests.MachineAdd(operation.name, base64url.encode(operation.pubkey)),
    ),
    _acknowledged(requests.MachineRemove, admin.MachineRemove, name="machine", to_frame=_own_machine),
    _row(
        requests.Audit,
        admin.Audit,
        frames.AuditList,
        to_frame=lambda request: admin.Audit(AUDIT_ROWS if request.limit is None else request.limit),
    ),
)

BY_REQUEST: dict[type[Request[Any]], Operation] = {row.request: row for row in _TABLE}
BY_FRAME: dict[type[Any], Operation] = {row.frame: row for row in _TABLE}
"""By the type of the frame, or of the operation in an Admin frame."""

_ADMIN = frozenset(typing.get_args(admin.AdminOp))


def frame_of(request: Request[Any]) -> frames.Frame:
    """Return the frame that asks this of a server. Raises: Refusal, for what v1 cannot express."""
    row = BY_REQUEST[type(request)]
    frame = row.to_frame(request)
    return frames.Admin(frame) if row.frame in _ADMIN else typing.cast("frames.Frame", frame)


def request_of(frame: frames.Frame) -> Request[Any]:
    """Return what a client asks with a frame. It has to be one of `BY_FRAME`, or an Admin frame."""
    asked = frame.op if isinstance(frame, frames.Admin) else frame
    request: Request[Any] = BY_FRAME[type(asked)].from_frame(asked)
    return request


def reply_of(request: Request[Any], result: msgspec.Struct) -> frames.Frame:
    """Return the frame that answers a request with its result."""
    return typing.cast("frames.Frame", BY_REQUEST[type(request)].to_reply(request, result))
