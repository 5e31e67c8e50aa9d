"""Protocol v2: JSON in text messages, every request with a number and its reply with the same one, in order."""

import secrets
from collections.abc import Awaitable, Callable
from collections.abc import Set as AbstractSet
from typing import Any

import msgspec

from conclave.errors import Code, InvalidKey, InvalidName, Refusal
from conclave.machine.keys import parse_public_key
from conclave.model import SessionPath
from conclave.protocol import events, requests, v2
from conclave.protocol.credentials import NONCE_BYTES
from conclave.protocol.v2 import CloseCode
from conclave.protocol.v2.close_codes import login_close
from conclave.protocol.v2.login import Limits, Ready
from conclave.protocol.v2.server_login import ServerLogin
from relay.model.close_reason import CloseReason, Ended
from relay.model.errors import RETRY_SECONDS
from relay.model.message import Message, order
from relay.observability import tracing
from relay.protocol.codec import Received
from relay.protocol.stored_body import keep_body, kept_body
from relay.redis.inbox import Whisper
from relay.services.context import RequestContext
from relay.services.messages import PAGE_BYTES
from relay.services.moderation import Moderation
from relay.sessions.session import Session
from relay.transport.framing import close_frame, text_frame

_AUDIT_ROWS = 100

_CODES = {
    CloseReason.LEFT: CloseCode.NORMAL,
    CloseReason.LOST: CloseCode.INTERNAL,
    CloseReason.SUPERSEDED: CloseCode.SUPERSEDED,
    CloseReason.REVOKED: CloseCode.REVOKED,
    CloseReason.USER_REMOVED: CloseCode.USER_REMOVED,
    CloseReason.IDLE: CloseCode.IDLE,
    CloseReason.SLOW_READER: CloseCode.SLOW_READER,
    CloseReason.MALFORMED: CloseCode.MALFORMED,
    CloseReason.SHUTDOWN: CloseCode.RESTART,
}


class V2Codec:
    """What the node says, as v2 messages. Every close has a code, and a `closing` event before it says the same."""

    subprotocol: str | None = v2.SUBPROTOCOL
    text: bool = True

    def __init__(self, *, origins: AbstractSet[str], idle_seconds: float, message_bytes: int) -> None:
        """Take the origins that clients may have dialled (none means any) and what a session is told of its limits."""
        self._origins = origins
        self._heartbeat = max(1, int(idle_seconds / 3))
        self._limits = Limits(message_bytes)

    def handshake(self, cluster: str, node: str) -> "V2Handshake":
        nonce = secrets.token_bytes(NONCE_BYTES)
        return V2Handshake(ServerLogin(nonce, cluster=cluster, node=node, origins=self._origins))

    def welcome(self, path: SessionPath, *, admin: bool) -> bytes:
        return text_frame(msgspec.json.encode(Ready(str(path), admin, self._heartbeat, self._limits)))

    def turned_away(self, refusal: Refusal) -> bytes:
        code = _CODES[refusal.reason] if isinstance(refusal, Ended) else login_close(refusal.code)
        retry = RETRY_SECONDS if code is CloseCode.LATER else None
        event = events.Closing(code, refusal.message, refusal.retry_after or retry, refusal.code.value)
        return _event(event) + close_frame(code, refusal.message)

    def call(self, data: Received) -> "V2Request":
        try:
            return V2Request(v2.decode_request(data))
        except v2.BadRequest as bad:
            return V2Request(bad)

    def message(self, channel: str, message: Message) -> bytes:
        body = kept_body(message.payload)
        return _event(events.Message(channel, message.sender, body, message.id, message.ts_ms))

    def whisper(self, whisper: Whisper) -> bytes:
        return _event(events.Whispered(whisper.sender, kept_body(whisper.payload), whisper.id, whisper.ts))

    def left(self, channel: str, reason: str) -> bytes:
        return _event(events.Left(channel, "removed" if reason == "revoked" else reason))

    def renamed(self, old: str, new: str) -> bytes:
        return _event(events.Renamed(old, new))

    def gap(self, channel: str, after: str) -> bytes:
        return _event(events.Gap(channel, after))

    def closing(self, reason: CloseReason) -> bytes:
        code = _CODES[reason]
        if reason.text is None:
            return close_frame(code, "")
        return _event(events.Closing(code, reason.text)) + close_frame(code, reason.text)


class V2Handshake:
    """The login, its messages as frames."""

    def __init__(self, login: ServerLogin) -> None:
        self._login = login

    def receive(self, data: Received) -> Any:
        step = self._login.receive(data)
        return text_frame(step) if isinstance(step, bytes) else step


class V2Request:
    """One request of a session, or an object that is none."""

    def __init__(self, incoming: "v2.Incoming | v2.BadRequest") -> None:
        self._incoming = incoming

    async def answer(self, desk: RequestContext) -> bytes:
        if isinstance(self._incoming, v2.BadRequest):
            raise self._incoming
        request = self._incoming.request
        with tracing.request(str(type(request).__struct_config__.tag), desk.session.path_text):
            result = await _COMMANDS[type(request)](desk, request)
            return text_frame(v2.encode_result(self._incoming.id, result))

    def refused(self, refusal: Refusal) -> bytes:
        return text_frame(v2.encode_error(self._incoming.id, refusal))


def _event(event: events.Event) -> bytes:
    return text_frame(v2.encode_event(event))


def _malformed(message: str) -> Refusal:
    return Refusal(Code.MALFORMED, message)


# --- Talking ---


async def _ping(_: RequestContext, __: requests.Ping) -> requests.Done:
    return requests.Done()


async def _join(desk: RequestContext, op: requests.Join) -> requests.Joined:
    entry = await desk.services.channels.join(desk.session, op.channel, op.token, op.since)
    return requests.Joined(op.channel, entry.position, entry.recovered, entry.admin)


async def _leave(desk: RequestContext, op: requests.Leave) -> requests.OnChannel:
    await desk.services.channels.leave(desk.session, op.channel)
    return requests.OnChannel(op.channel)


async def _who(desk: RequestContext, op: requests.Who) -> requests.Sessions:
    presence = desk.services.presence
    if op.channel is None:
        return requests.Sessions(tuple(await presence.everybody(desk.session)))
    return requests.Sessions(tuple(await presence.in_channel(desk.session, op.channel)))


async def _channels(desk: RequestContext, _: requests.ListChannels) -> requests.Channels:
    rows = await desk.services.channels.listed(desk.session)
    joined = desk.session.joined
    return requests.Channels(
        tuple(
            requests.ChannelRow(row.name, row.visibility, row.member, joined.get(row.name) == row.channel_id, row.admin)
            for row in rows
        )
    )


async def _send(desk: RequestContext, op: requests.Send) -> requests.Sent:
    message_id = await desk.services.messages.post(desk.session, op.channel, *keep_body(op.body), key=op.key)
    return requests.Sent(message_id, order(message_id)[0])


async def _whisper(desk: RequestContext, op: requests.Whisper) -> requests.Sent:
    try:
        target = SessionPath.parse(op.to)
    except InvalidName as error:
        raise _malformed(str(error)) from None
    whisper_id, ts = await desk.services.messages.whisper(desk.session, target, *keep_body(op.body), key=op.key)
    return requests.Sent(whisper_id, ts)


class _Rows(msgspec.Struct, frozen=True, omit_defaults=True):
    """A Page whose messages are encoded already."""

    messages: list[msgspec.Raw]
    more: bool
    lost: bool = False


async def _history(desk: RequestContext, op: requests.History) -> _Rows:
    if op.after is not None and op.after_ts is not None:
        raise _malformed("either `after` or `after_ts`")
    after = op.after_ts if op.after is None else op.after
    piece = await desk.services.messages.history(
        desk.session, op.channel, after=after, before=op.before, limit=op.limit
    )
    rows = [
        msgspec.json.encode(requests.Row(each.id, each.ts_ms, each.sender, kept_body(each.payload)))
        for each in piece.rows
    ]
    # JSON may be six times as long as what is kept, and what is left out must be at the end that comes next.
    fitting = _fitting(rows[::-1])[::-1] if after is None else _fitting(rows)
    return _Rows([msgspec.Raw(row) for row in fitting], piece.more or len(fitting) < len(rows), not piece.known)


def _fitting(rows: list[bytes]) -> list[bytes]:
    """Return the first rows, as many as a page may hold: one at least."""
    size = 0
    for count, row in enumerate(rows):
        size += len(row)
        if count and size > PAGE_BYTES:
            return rows[:count]
    return rows


async def _machines(desk: RequestContext, _: requests.ListMachines) -> requests.Machines:
    return requests.Machines(tuple(await desk.services.accounts.machines(desk.session)))


async def _users(desk: RequestContext, _: requests.ListUsers) -> requests.Users:
    return requests.Users(tuple(await desk.services.accounts.users(desk.session)))


# --- Ruling ---


async def _channel_create(desk: RequestContext, op: requests.ChannelCreate) -> requests.OnChannel:
    await desk.services.channels.create(desk.session, op.channel, op.visibility)
    return requests.OnChannel(op.channel)


async def _channel_delete(desk: RequestContext, op: requests.ChannelDelete) -> requests.OnChannel:
    await desk.services.rule.delete(desk.session, op.channel)
    return requests.OnChannel(op.channel)


async def _channel_rename(desk: RequestContext, op: requests.ChannelRename) -> requests.OnChannel:
    await desk.services.rule.rename(desk.session, op.channel, op.to)
    return requests.OnChannel(op.to)


async def _channel_visibility(desk: RequestContext, op: requests.ChannelVisibility) -> requests.OnChannel:
    await desk.services.rule.set_visibility(desk.session, op.channel, op.visibility)
    return requests.OnChannel(op.channel)


def _on_user(change: Callable[[Moderation], Callable[[Session, str, str], Awaitable[None]]]) -> "_Command":
    """Make the command for an operation on a channel and a user."""

    async def command(desk: RequestContext, op: Any) -> requests.OnUser:
        await change(desk.services.rule)(desk.session, op.channel, op.user)
        return requests.OnUser(op.user)

    return command


async def _acl_list(desk: RequestContext, op: requests.AclList) -> requests.Users:
    return requests.Users(tuple(await desk.services.rule.members(desk.session, op.channel)))


async def _bans(desk: RequestContext, op: requests.Bans) -> requests.Users:
    return requests.Users(tuple(await desk.services.rule.bans(desk.session, op.channel)))


async def _kick(desk: RequestContext, op: requests.Kick) -> requests.OnTarget:
    await desk.services.rule.kick(desk.session, op.channel, op.target)
    return requests.OnTarget(op.target)


async def _invite_create(desk: RequestContext, op: requests.InviteCreate) -> requests.Token:
    return requests.Token(await desk.services.rule.create_invite(desk.session, op.channel, op.uses, op.expires_in))


async def _invite_revoke(desk: RequestContext, op: requests.InviteRevoke) -> requests.Token:
    await desk.services.rule.revoke_invite(desk.session, op.token)
    return requests.Token(op.token)


async def _invite_list(desk: RequestContext, op: requests.InviteList) -> requests.Invites:
    return requests.Invites(tuple(await desk.services.rule.invites(desk.session, op.channel)))


async def _user_remove(desk: RequestContext, op: requests.UserRemove) -> requests.OnUser:
    await desk.services.accounts.remove_user(desk.session, op.user)
    return requests.OnUser(op.user)


async def _machine_add(desk: RequestContext, op: requests.MachineAdd) -> requests.OnMachine:
    try:
        pubkey = parse_public_key(op.pubkey)
    except InvalidKey as error:
        raise _malformed(str(error)) from None
    await desk.services.accounts.add_machine(desk.session, op.machine, pubkey)
    return requests.OnMachine(op.machine)


async def _machine_remove(desk: RequestContext, op: requests.MachineRemove) -> requests.OnMachine:
    await desk.services.accounts.remove_machine(desk.session, op.machine, op.user)
    return requests.OnMachine(op.machine)


async def _server_invite_create(desk: RequestContext, op: requests.ServerInviteCreate) -> requests.Token:
    return requests.Token(await desk.services.accounts.create_server_invite(desk.session, op.uses, op.expires_in))


async def _audit(desk: RequestContext, op: requests.Audit) -> requests.Trail:
    limit = _AUDIT_ROWS if op.limit is None else op.limit
    if not 1 <= limit < 2**32:
        raise _malformed("a limit is at least 1")
    return requests.Trail(tuple(await desk.services.accounts.audit_trail(desk.session, limit)))


_Command = Callable[[RequestContext, Any], Awaitable[msgspec.Struct]]

_COMMANDS: dict[type[requests.Request[Any]], _Command] = {
    requests.Ping: _ping,
    requests.Join: _join,
    requests.Leave: _leave,
    requests.Who: _who,
    requests.ListChannels: _channels,
    requests.Send: _send,
    requests.Whisper: _whisper,
    requests.History: _history,
    requests.ListMachines: _machines,
    requests.ListUsers: _users,
    requests.ChannelCreate: _channel_create,
    requests.ChannelDelete: _channel_delete,
    requests.ChannelRename: _channel_rename,
    requests.ChannelVisibility: _channel_visibility,
    requests.AclAdd: _on_user(lambda rule: rule.add_member),
    requests.AclRemove: _on_user(lambda rule: rule.remove_member),
    requests.AclList: _acl_list,
    requests.AclPromote: _on_user(lambda rule: rule.promote),
    requests.AclDemote: _on_user(lambda rule: rule.demote),
    requests.InviteCreate: _invite_create,
    requests.InviteRevoke: _invite_revoke,
    requests.InviteList: _invite_list,
    requests.Kick: _kick,
    requests.Ban: _on_user(lambda rule: rule.ban),
    requests.Unban: _on_user(lambda rule: rule.unban),
    requests.Bans: _bans,
    requests.UserRemove: _user_remove,
    requests.MachineAdd: _machine_add,
    requests.MachineRemove: _machine_remove,
    requests.ServerInviteCreate: _server_invite_create,
    requests.Audit: _audit,
}
