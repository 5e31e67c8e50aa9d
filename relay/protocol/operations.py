"""The operations of a session: which service answers which request, the same for both protocol versions.

A handler takes what was asked and returns its result; a codec decodes the one and encodes the other.
"""

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import msgspec

from conclave.protocol import requests
from relay.model.message import Message
from relay.observability import tracing
from relay.protocol import message_requests
from relay.protocol.codec import IncomingRequest
from relay.redis.channel_log import LogPage
from relay.services.context import RequestContext
from relay.services.moderation import Moderation
from relay.sessions.session import Session


class Reply(msgspec.Struct, frozen=True):
    """The frame of a reply, and what has to be done once that is written."""

    frame: bytes
    after: Callable[[], None] | None = None


async def answer(context: RequestContext, incoming: IncomingRequest, request: Any) -> Reply:
    """Carry out a request, which `incoming` has decoded. Raises: Refusal."""
    with tracing.request(incoming.operation, context.session.path_text):
        result = await OPERATIONS[type(request)](context, request)
        if isinstance(result, _Continued):
            return Reply(incoming.reply(result.result), result.after)
        return Reply(incoming.reply(result))


class _Continued(msgspec.Struct, frozen=True):
    """A result with something that follows its reply."""

    result: Any
    after: Callable[[], None]


# --- Talking ---


async def _ping(_: RequestContext, __: requests.Ping) -> requests.Done:
    return requests.Done()


async def _join(context: RequestContext, request: requests.Join) -> requests.Joined | _Continued:
    joined = await context.services.channels.join(context.session, request.channel, request.token, request.since)
    result = requests.Joined(request.channel, joined.position, joined.recovered, joined.admin)
    return result if joined.start_replay is None else _Continued(result, joined.start_replay)


async def _leave(context: RequestContext, request: requests.Leave) -> requests.OnChannel:
    await context.services.channels.leave(context.session, request.channel)
    return requests.OnChannel(request.channel)


async def _who(context: RequestContext, request: requests.Who) -> requests.Sessions:
    presence = context.services.presence
    if request.channel is None:
        return requests.Sessions(tuple(await presence.everybody(context.session)))
    return requests.Sessions(tuple(await presence.in_channel(context.session, request.channel)))


async def _channels(context: RequestContext, _: requests.ListChannels) -> requests.Channels:
    rows = await context.services.channels.listed(context.session)
    joined = context.session.joined
    return requests.Channels(
        tuple(
            requests.ChannelRow(row.name, row.visibility, row.member, joined.get(row.name) == row.channel_id, row.admin)
            for row in rows
        )
    )


async def _post(context: RequestContext, request: message_requests.Post) -> requests.Sent:
    body = request.body
    sent = await context.services.messages.post(
        context.session, request.channel, body.payload, body.size, key=request.key
    )
    return requests.Sent(*sent)


async def _whisper(context: RequestContext, request: message_requests.Whisper) -> requests.Sent:
    body = request.body
    sent = await context.services.messages.whisper(
        context.session, request.to, body.payload, body.size, key=request.key
    )
    return requests.Sent(*sent)


async def _history(context: RequestContext, request: message_requests.ReadHistory) -> LogPage:
    return await context.services.messages.history(
        context.session, request.channel, after=request.after, before=request.before, limit=request.limit
    )


async def _read_since(context: RequestContext, request: message_requests.ReadSince) -> list[Message]:
    return await context.services.messages.read_since(context.session, request.channel, request.since_ms)


async def _machines(context: RequestContext, _: requests.ListMachines) -> requests.Machines:
    return requests.Machines(tuple(await context.services.accounts.machines(context.session)))


async def _users(context: RequestContext, _: requests.ListUsers) -> requests.Users:
    return requests.Users(tuple(await context.services.accounts.users(context.session)))


# --- Administration ---


async def _channel_create(context: RequestContext, request: requests.ChannelCreate) -> requests.OnChannel:
    await context.services.channels.create(context.session, request.channel, request.visibility)
    return requests.OnChannel(request.channel)


async def _channel_delete(context: RequestContext, request: requests.ChannelDelete) -> requests.OnChannel:
    await context.services.moderation.delete(context.session, request.channel)
    return requests.OnChannel(request.channel)


async def _channel_rename(context: RequestContext, request: requests.ChannelRename) -> requests.OnChannel:
    await context.services.moderation.rename(context.session, request.channel, request.to)
    return requests.OnChannel(request.to)


async def _channel_visibility(context: RequestContext, request: requests.ChannelVisibility) -> requests.OnChannel:
    await context.services.moderation.set_visibility(context.session, request.channel, request.visibility)
    return requests.OnChannel(request.channel)


_OnUser = (
    requests.AclAdd | requests.AclRemove | requests.AclPromote | requests.AclDemote | requests.Ban | requests.Unban
)


def _on_user(
    method: Callable[[Moderation, Session, str, str], Awaitable[None]],
) -> Callable[[RequestContext, _OnUser], Coroutine[Any, Any, requests.OnUser]]:
    """Make the handler of an operation on a channel and a user."""

    async def handler(context: RequestContext, request: _OnUser) -> requests.OnUser:
        await method(context.services.moderation, context.session, request.channel, request.user)
        return requests.OnUser(request.user)

    return handler


async def _acl_list(context: RequestContext, request: requests.AclList) -> requests.Users:
    return requests.Users(tuple(await context.services.moderation.members(context.session, request.channel)))


async def _bans(context: RequestContext, request: requests.Bans) -> requests.Users:
    return requests.Users(tuple(await context.services.moderation.bans(context.session, request.channel)))


async def _kick(context: RequestContext, request: requests.Kick) -> requests.OnTarget:
    await context.services.moderation.kick(context.session, request.channel, request.target)
    return requests.OnTarget(request.target)


async def _invite_create(context: RequestContext, request: requests.InviteCreate) -> requests.Token:
    moderation = context.services.moderation
    return requests.Token(
        await moderation.create_invite(context.session, request.channel, request.uses, request.expires_in)
    )


async def _invite_revoke(context: RequestContext, request: requests.InviteRevoke) -> requests.Token:
    await context.services.moderation.revoke_invite(context.session, request.token)
    return requests.Token(request.token)


async def _invite_list(context: RequestContext, request: requests.InviteList) -> requests.Invites:
    return requests.Invites(tuple(await context.services.moderation.invites(context.session, request.channel)))


async def _user_remove(context: RequestContext, request: requests.UserRemove) -> requests.OnUser:
    await context.services.accounts.remove_user(context.session, request.user)
    return requests.OnUser(request.user)


async def _machine_add(context: RequestContext, request: requests.MachineAdd) -> requests.OnMachine:
    await context.services.accounts.add_machine(context.session, request.machine, request.pubkey)
    return requests.OnMachine(request.machine)


async def _machine_remove(context: RequestContext, request: requests.MachineRemove) -> requests.OnMachine:
    await context.services.accounts.remove_machine(context.session, request.machine, request.user)
    return requests.OnMachine(request.machine)


async def _server_invite_create(context: RequestContext, request: requests.ServerInviteCreate) -> requests.Token:
    accounts = context.services.accounts
    return requests.Token(await accounts.create_server_invite(context.session, request.uses, request.expires_in))


async def _audit(context: RequestContext, request: requests.Audit) -> requests.Trail:
    return requests.Trail(tuple(await context.services.accounts.audit_trail(context.session, request.limit)))


Handler = Callable[[RequestContext, Any], Awaitable[Any]]

OPERATIONS: dict[type[Any], Handler] = {
    requests.Ping: _ping,
    requests.Join: _join,
    requests.Leave: _leave,
    requests.Who: _who,
    requests.ListChannels: _channels,
    message_requests.Post: _post,
    message_requests.Whisper: _whisper,
    message_requests.ReadHistory: _history,
    message_requests.ReadSince: _read_since,
    requests.ListMachines: _machines,
    requests.ListUsers: _users,
    requests.ChannelCreate: _channel_create,
    requests.ChannelDelete: _channel_delete,
    requests.ChannelRename: _channel_rename,
    requests.ChannelVisibility: _channel_visibility,
    requests.AclAdd: _on_user(Moderation.add_member),
    requests.AclRemove: _on_user(Moderation.remove_member),
    requests.AclList: _acl_list,
    requests.AclPromote: _on_user(Moderation.promote),
    requests.AclDemote: _on_user(Moderation.demote),
    requests.InviteCreate: _invite_create,
    requests.InviteRevoke: _invite_revoke,
    requests.InviteList: _invite_list,
    requests.Kick: _kick,
    requests.Ban: _on_user(Moderation.ban),
    requests.Unban: _on_user(Moderation.unban),
    requests.Bans: _bans,
    requests.UserRemove: _user_remove,
    requests.MachineAdd: _machine_add,
    requests.MachineRemove: _machine_remove,
    requests.ServerInviteCreate: _server_invite_create,
    requests.Audit: _audit,
}
"""By the type of what was asked."""
