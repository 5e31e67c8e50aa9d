"""The tools of channel administrators."""

from collections.abc import Callable
from typing import Annotated, Any, ClassVar, TypeVar

from msgspec import UNSET, Meta, UnsetType

from bridge.errors import ToolError
from bridge.session import presentation
from bridge.session.effects import Effects
from bridge.session.servers import Server
from bridge.session.session import BridgeSession
from bridge.tools.arguments import Named, OnChannel, ToServer, User, given
from conclave.errors import Code, Refusal
from conclave.model import Visibility
from conclave.protocol.requests import (
    ChannelCreate,
    ChannelDelete,
    ChannelRename,
    ChannelVisibility,
    InviteCreate,
    InviteList,
    InviteRevoke,
    Invites,
    Kick,
    Request,
    Token,
    Users,
)

R = TypeVar("R")


class CreateChannel(Named, frozen=True, kw_only=True):
    visibility: Annotated[
        Visibility | UnsetType,
        Meta(description="Who finds it; unlisted is found by its name only. Public unless given."),
    ] = UNSET


def create_channel(_: BridgeSession, server: Server, args: CreateChannel) -> Effects[str]:
    yield ChannelCreate(args.name, given(args.visibility) or Visibility.PUBLIC)
    server.set_administered(args.name, admin=True)
    return presentation.name(args.name)


def delete_channel(_: BridgeSession, server: Server, args: Named) -> Effects[str]:
    yield from _administer(server, args.name, ChannelDelete(args.name))
    server.remove(args.name)
    return presentation.name(args.name)


class SetVisibility(Named, frozen=True, kw_only=True):
    wanted: ClassVar[str] = "`name` and a valid `visibility` are required"

    visibility: Annotated[Visibility, Meta(description="Private removes the sessions of non-members.")]


def set_visibility(_: BridgeSession, server: Server, args: SetVisibility) -> Effects[str]:
    yield from _administer(server, args.name, ChannelVisibility(args.name, args.visibility))
    return presentation.name(args.name)


class RenameChannel(Named, frozen=True, kw_only=True):
    new_name: Annotated[str, Meta(description="Its new name.")]


def rename_channel(session: BridgeSession, server: Server, args: RenameChannel) -> Effects[str]:
    yield from _administer(server, args.name, ChannelRename(args.name, args.new_name))
    session.renamed(server, args.name, args.new_name)
    return presentation.name(args.new_name)


class OnUser(OnChannel, frozen=True, kw_only=True):
    user: User


def on_user(request: Callable[[str, str], Request[Any]]) -> Callable[[BridgeSession, Server, OnUser], Effects[str]]:
    def steps(_: BridgeSession, server: Server, args: OnUser) -> Effects[str]:
        yield from _administer(server, args.channel, request(args.channel, args.user))
        return presentation.name(args.user)

    return steps


class KickOut(OnChannel, frozen=True, kw_only=True):
    target: Annotated[str, Meta(description="A username, or one session: user/machine/session.")]


def kick(_: BridgeSession, server: Server, args: KickOut) -> Effects[str]:
    yield from _administer(server, args.channel, Kick(args.channel, args.target))
    return presentation.name(args.target)


def names(request: Callable[[str], Request[Users]]) -> Callable[[BridgeSession, Server, OnChannel], Effects[str]]:
    def steps(_: BridgeSession, server: Server, args: OnChannel) -> Effects[str]:
        found: Users = yield from _administer(server, args.channel, request(args.channel))
        return ", ".join(map(presentation.line, found.users)) or "nobody"

    return steps


class CreateInvite(OnChannel, frozen=True, kw_only=True):
    uses: (
        Annotated[
            int, Meta(ge=1, le=2**32 - 1, description="The number of users who may redeem it; unlimited unless given.")
        ]
        | UnsetType
    ) = UNSET
    expires_in_secs: (
        Annotated[int, Meta(ge=1, le=2**53, description="The seconds until it expires; never unless given.")]
        | UnsetType
    ) = UNSET


def invite_create(_: BridgeSession, server: Server, args: CreateInvite) -> Effects[str]:
    request = InviteCreate(args.channel, given(args.uses), given(args.expires_in_secs))
    created: Token = yield from _administer(server, args.channel, request)
    return f"invite token: {presentation.name(created.token)}"


class RevokeInvite(ToServer, frozen=True, kw_only=True):
    token: Annotated[str, Meta(description="The invite.")]


def invite_revoke(_: BridgeSession, __: Server, args: RevokeInvite) -> Effects[str]:
    yield InviteRevoke(args.token)
    return presentation.name(args.token)


def invite_list(_: BridgeSession, server: Server, args: OnChannel) -> Effects[str]:
    found: Invites = yield from _administer(server, args.channel, InviteList(args.channel))
    if not found.invites:
        return "no outstanding invites"
    return "\n".join(
        f"{presentation.name(invite.token)} (uses remaining: "
        f"{'unlimited' if invite.uses_remaining is None else invite.uses_remaining}, "
        f"expires: {presentation.name(invite.expires_at or 'never')})"
        for invite in found.invites
    )


def _administer(server: Server, channel: str, request: Request[R]) -> Effects[R]:
    """Ask for an operation on a channel; the answer also tells if the user administers the channel.

    Raises:
        ToolError: if the user does not.
    """
    try:
        result: R = yield request
    except Refusal as refusal:
        if refusal.code is not Code.UNAUTHORIZED:
            raise
        server.set_administered(channel, admin=False)
        raise ToolError(f"not an admin on `{server.url}`") from refusal
    if not server.admin:  # an admin of the server may do it in any channel, as long as that role lasts
        server.set_administered(channel, admin=True)
    return result
