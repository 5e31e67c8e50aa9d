"""Protocol v1: bincode in binary messages, one reply to every request, in order."""

import secrets
from collections.abc import Awaitable, Callable
from typing import Any

from conclave.errors import Code, FrameError, Refusal
from conclave.model import ChannelInfo, SessionPath
from conclave.protocol import v1
from conclave.protocol.credentials import NONCE_BYTES, LoginClaim, RegistrationClaim
from conclave.protocol.v1 import admin, frames
from conclave.protocol.v1.errors import error_frame
from conclave.protocol.v1.handshake import Reply, ServerHandshake, undecodable
from relay.model.close_reason import CloseReason
from relay.model.message import Message
from relay.observability import tracing
from relay.protocol.codec import Received
from relay.protocol.stored_body import keep
from relay.redis.inbox import Whisper
from relay.services.context import RequestContext
from relay.services.moderation import Moderation
from relay.sessions.session import Session
from relay.transport.framing import CLOSE, binary_frame


class V1Codec:
    """What the node says, as v1 frames. A kill is an Unauthorized error with the reason as its text, then a close."""

    subprotocol: str | None = None
    text: bool = False

    def handshake(self, cluster: str, node: str) -> "V1Handshake":  # noqa: ARG002 - v1 names neither
        return V1Handshake()

    def welcome(self, path: SessionPath, *, admin: bool) -> bytes:
        """Encode what follows a login: Established, ServerInfo."""
        return _ready(frames.Established(path)) + _ready(frames.ServerInfo(admin))

    def turned_away(self, refusal: Refusal) -> bytes:
        return _ready(error_frame(refusal)) + CLOSE

    def call(self, data: Received) -> "V1Request":
        assert isinstance(data, bytes)  # noqa: S101 - the socket passes nothing else on
        return V1Request(data)

    def message(self, channel: str, message: Message) -> bytes:
        return _ready(frames.ChannelMsg(channel, _path(message.sender), frames.RawPayload(message.payload)))

    def whisper(self, whisper: Whisper) -> bytes:
        payload = frames.RawPayload(whisper.payload)
        return _ready(frames.Whisper(_path(whisper.sender), _path(whisper.target), payload))

    def left(self, channel: str, reason: str) -> None:  # noqa: ARG002 - v1 has no word for it
        return None

    def renamed(self, old: str, new: str) -> None:  # noqa: ARG002 - v1 has no word for it
        return None

    def gap(self, channel: str, after: str) -> None:  # noqa: ARG002 - v1 has no word for it
        return None

    def closing(self, reason: CloseReason) -> bytes:
        if reason.text is None:
            return CLOSE
        return _ready(frames.Error(frames.Unauthorized(reason.text))) + CLOSE


class V1Handshake:
    """The v1 handshake with its bytes."""

    def __init__(self) -> None:
        self._handshake = ServerHandshake(secrets.token_bytes(NONCE_BYTES))

    def receive(self, data: Received) -> bytes | LoginClaim | RegistrationClaim:
        assert isinstance(data, bytes)  # noqa: S101 - as above
        try:
            step = self._handshake.receive(v1.decode(data))
        except FrameError as error:
            raise undecodable(error) from None
        match step:
            case LoginClaim() | RegistrationClaim():
                return step
            case Reply(frame):
                return _ready(frame)
            case _:
                return b""


class V1Request:
    """One binary message of a session. Only requests are read at all."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    async def answer(self, desk: RequestContext) -> bytes:
        try:
            command = _COMMANDS.get(v1.frame_type(self._data))
            if command is None:
                raise Refusal(Code.MALFORMED, "unexpected frame from client")
            frame = v1.decode(self._data)
        except FrameError as error:
            raise Refusal(Code.MALFORMED, str(error)) from None
        with tracing.request(frames.kind(frame), desk.session.path_text):
            return _ready(await command(desk, frame))

    def refused(self, refusal: Refusal) -> bytes:
        return _ready(error_frame(refusal))


def _ready(frame: frames.Frame) -> bytes:
    return binary_frame(v1.encode(frame))


def _path(text: str) -> SessionPath:
    return SessionPath(*text.split("/"))


# --- Requests ---


async def _ping(_: RequestContext, __: frames.Ping) -> frames.Pong:
    return frames.Pong()


async def _join(desk: RequestContext, frame: frames.Join) -> frames.Joined:
    await desk.services.channels.join(desk.session, frame.channel, frame.token)
    return frames.Joined(frame.channel)


async def _leave(desk: RequestContext, frame: frames.Leave) -> frames.Ack:
    await desk.services.channels.leave(desk.session, frame.channel)
    return frames.Ack(frame.channel)


async def _who(desk: RequestContext, frame: frames.Who) -> frames.Presence:
    presence = desk.services.presence
    if frame.channel is None:
        paths = await presence.everybody(desk.session)
    else:
        paths = await presence.in_channel(desk.session, frame.channel)
    return frames.Presence(frame.channel, tuple(map(_path, paths)))


async def _list_channels(desk: RequestContext, _: frames.ListChannels) -> frames.ChannelList:
    rows = await desk.services.channels.listed(desk.session)
    return frames.ChannelList(tuple(ChannelInfo(row.name, row.visibility, row.member) for row in rows))


async def _list_machines(desk: RequestContext, _: frames.ListMachines) -> frames.MachineList:
    return frames.MachineList(tuple(await desk.services.accounts.machines(desk.session)))


async def _list_users(desk: RequestContext, _: frames.ListUsers) -> frames.UserList:
    return frames.UserList(tuple(await desk.services.accounts.users(desk.session)))


async def _channel_msg(desk: RequestContext, frame: frames.ChannelMsg) -> frames.Ack:
    await desk.services.messages.post(desk.session, frame.channel, *keep(frame.payload))
    return frames.Ack(None)


async def _whisper(desk: RequestContext, frame: frames.Whisper) -> frames.Ack:
    await desk.services.messages.whisper(desk.session, frame.target, *keep(frame.payload))
    return frames.Ack(None)


async def _read_since(desk: RequestContext, frame: frames.ReadSince) -> frames.History:
    rows = await desk.services.messages.read_since(desk.session, frame.channel, frame.since_ms)
    return frames.History(
        frame.channel,
        tuple(frames.HistoryMessage(_path(row.sender), row.ts_ms, frames.RawPayload(row.payload)) for row in rows),
    )


async def _admin(desk: RequestContext, frame: frames.Admin) -> frames.Frame:
    return await _OPERATIONS[type(frame.op)](desk, frame.op)


# --- Admin operations ---


async def _create_channel(desk: RequestContext, op: admin.CreateChannel) -> frames.Ack:
    await desk.services.channels.create(desk.session, op.name, op.visibility)
    return frames.Ack(op.name)


async def _delete_channel(desk: RequestContext, op: admin.DeleteChannel) -> frames.Ack:
    await desk.services.rule.delete(desk.session, op.name)
    return frames.Ack(op.name)


async def _rename_channel(desk: RequestContext, op: admin.RenameChannel) -> frames.Ack:
    await desk.services.rule.rename(desk.session, op.name, op.new_name)
    return frames.Ack(op.new_name)


async def _set_visibility(desk: RequestContext, op: admin.SetVisibility) -> frames.Ack:
    await desk.services.rule.set_visibility(desk.session, op.name, op.visibility)
    return frames.Ack(op.name)


def _on_user(change: Callable[[Moderation], Callable[[Session, str, str], Awaitable[None]]]) -> "_Command":
    """Make the command for an operation on a channel and a user, which is acknowledged with the user's name."""

    async def command(desk: RequestContext, op: Any) -> frames.Ack:
        await change(desk.services.rule)(desk.session, op.channel, op.user)
        return frames.Ack(op.user)

    return command


async def _kick(desk: RequestContext, op: admin.Kick) -> frames.Ack:
    await desk.services.rule.kick(desk.session, op.channel, op.target)
    return frames.Ack(op.target)


async def _acl_list(desk: RequestContext, op: admin.AclList) -> frames.UserList:
    return frames.UserList(tuple(await desk.services.rule.members(desk.session, op.channel)))


async def _ban_list(desk: RequestContext, op: admin.BanList) -> frames.UserList:
    return frames.UserList(tuple(await desk.services.rule.bans(desk.session, op.channel)))


async def _invite_create(desk: RequestContext, op: admin.InviteCreate) -> frames.InviteToken:
    token = await desk.services.rule.create_invite(desk.session, op.channel, op.uses, op.expires_in_secs)
    return frames.InviteToken(token)


async def _invite_revoke(desk: RequestContext, op: admin.InviteRevoke) -> frames.Ack:
    await desk.services.rule.revoke_invite(desk.session, op.token)
    return frames.Ack(op.token)


async def _invite_list(desk: RequestContext, op: admin.InviteListOp) -> frames.InviteList:
    return frames.InviteList(tuple(await desk.services.rule.invites(desk.session, op.channel)))


async def _user_remove(desk: RequestContext, op: admin.UserRemove) -> frames.Ack:
    await desk.services.accounts.remove_user(desk.session, op.username)
    return frames.Ack(op.username)


async def _machine_add(desk: RequestContext, op: admin.MachineAdd) -> frames.Ack:
    await desk.services.accounts.add_machine(desk.session, op.name, op.pubkey)
    return frames.Ack(op.name)


async def _machine_remove(desk: RequestContext, op: admin.MachineRemove) -> frames.Ack:
    await desk.services.accounts.remove_machine(desk.session, op.name)
    return frames.Ack(op.name)


async def _server_invite_create(desk: RequestContext, op: admin.ServerInviteCreate) -> frames.InviteToken:
    return frames.InviteToken(
        await desk.services.accounts.create_server_invite(desk.session, op.uses, op.expires_in_secs)
    )


async def _audit(desk: RequestContext, op: admin.Audit) -> frames.AuditList:
    return frames.AuditList(tuple(await desk.services.accounts.audit_trail(desk.session, op.limit)))


_Command = Callable[[RequestContext, Any], Awaitable[frames.Frame]]

_COMMANDS: dict[type[frames.Frame], _Command] = {
    frames.Ping: _ping,
    frames.Join: _join,
    frames.Leave: _leave,
    frames.Who: _who,
    frames.Admin: _admin,
    frames.ChannelMsg: _channel_msg,
    frames.Whisper: _whisper,
    frames.ListChannels: _list_channels,
    frames.ListMachines: _list_machines,
    frames.ListUsers: _list_users,
    frames.ReadSince: _read_since,
}

_OPERATIONS: dict[type[admin.AdminOp], _Command] = {
    admin.CreateChannel: _create_channel,
    admin.DeleteChannel: _delete_channel,
    admin.RenameChannel: _rename_channel,
    admin.SetVisibility: _set_visibility,
    admin.AclAdd: _on_user(lambda rule: rule.add_member),
    admin.AclRemove: _on_user(lambda rule: rule.remove_member),
    admin.AclList: _acl_list,
    admin.AclPromote: _on_user(lambda rule: rule.promote),
    admin.AclDemote: _on_user(lambda rule: rule.demote),
    admin.InviteCreate: _invite_create,
    admin.InviteRevoke: _invite_revoke,
    admin.InviteListOp: _invite_list,
    admin.Kick: _kick,
    admin.Ban: _on_user(lambda rule: rule.ban),
    admin.Unban: _on_user(lambda rule: rule.unban),
    admin.BanList: _ban_list,
    admin.UserRemove: _user_remove,
    admin.MachineAdd: _machine_add,
    admin.MachineRemove: _machine_remove,
    admin.ServerInviteCreate: _server_invite_create,
    admin.Audit: _audit,
}
