"""What an agent can do: one row for each tool.

A row names the tool, says when it is offered, what it takes, and what it does: its steps are a generator that yields
requests to the server and returns the text of the result. Pure. There is no tool for keys, registrations, machines
or users, on purpose: an agent that was talked into something must not reach them.
"""

import enum
import secrets
from collections.abc import Callable, Generator
from typing import Annotated, Any, ClassVar, TypeVar

import msgspec
from msgspec import UNSET, Meta, UnsetType

from bridge.session import presentation
from bridge.session.read_state import at_time, behind, is_time
from bridge.session.servers import Server
from bridge.session.session import BridgeSession
from bridge.tools.arguments import Arguments, Channel, ToServer, User, given
from conclave.durations import parse
from conclave.errors import Code, ConclaveError, InvalidDuration, InvalidName, Refusal
from conclave.machine.config import Level
from conclave.model import SessionPath, Visibility
from conclave.protocol.body import Body
from conclave.protocol.requests import (
    AclAdd,
    AclList,
    AclRemove,
    Ban,
    Bans,
    ChannelCreate,
    ChannelDelete,
    ChannelRename,
    ChannelRow,
    Channels,
    ChannelVisibility,
    InviteCreate,
    InviteList,
    InviteRevoke,
    Invites,
    Kick,
    Leave,
    ListChannels,
    Page,
    Request,
    Row,
    Send,
    Sessions,
    Token,
    Unban,
    Users,
    Whisper,
    Who,
)

Effects = Generator[Request[Any], Any, str]

R = TypeVar("R")

PAGE_ROWS = 100
"""How many messages `catch_up` shows at once."""
PAGE_CHARS = 48_000
"""How long a page of `catch_up` gets before the rest is left to the next one; a result beyond that is cut by hosts."""


class ToolError(ConclaveError):
    """A tool that cannot do what it was asked; the text is for the agent."""


class Offer(enum.Enum):
    """When a tool is listed."""

    ALWAYS = "always"
    SEND = "when a joined channel lets the agent answer"
    WHISPER = "when whispers let the agent answer"
    RULE = "to admins of a server, and of a channel"


def _always(_: BridgeSession, __: Server, ___: Any) -> None:
    """Permit everything: the server decides."""


class Tool(msgspec.Struct, frozen=True):
    """One row. `effect` says that asking twice is not the same as asking once.

    `permit` raises ToolError if the tool may not ask the server; levels may change while it waits for a connection.
    """

    name: str
    description: str
    takes: type[Arguments]
    offer: Offer
    steps: Callable[[BridgeSession, Server, Any], Effects]
    effect: bool = True
    permit: Callable[[BridgeSession, Server, Any], None] = _always


# --- What every session has ---


class JoinChannel(ToServer, frozen=True, kw_only=True):
    channel: Channel
    token: Annotated[str | UnsetType, Meta(description="An invite to the channel.")] = UNSET
    perm: Annotated[Level | UnsetType, Meta(description="Level of the channel, for this session.")] = UNSET


def _join_channel(session: BridgeSession, server: Server, args: JoinChannel) -> Effects:
    level = given(args.perm)
    if level is not None:
        session.levels.check(server.urls, args.channel, level)
    channel = yield from session.join(server, args.channel, given(args.token), level)
    return f"joined {presentation.name(channel)}"


class OnChannel(ToServer, frozen=True, kw_only=True):
    channel: Channel


def _leave_channel(_: BridgeSession, server: Server, args: OnChannel) -> Effects:
    server.leaves(args.channel)
    yield Leave(args.channel)
    server.drop(args.channel)
    return f"left {presentation.name(args.channel)}"


def _list_channels(_: BridgeSession, __: Server, ___: ToServer) -> Effects:
    found: Channels = yield ListChannels()
    if not found.channels:
        return "no channels visible"
    return "\n".join(
        f"{presentation.name(row.name)} ({', '.join([row.visibility.value, *_relations(row)])})"
        for row in found.channels
    )


def _relations(row: ChannelRow) -> list[str]:
    """Return what the user, and this session, have to do with a channel."""
    known = {"member": row.member, "joined": row.joined, "admin": row.admin}
    return [name for name, holds in known.items() if holds]


class WhoIs(ToServer, frozen=True, kw_only=True):
    channel: Annotated[str | UnsetType, Meta(description="Only who is in this channel.")] = UNSET


def _who(_: BridgeSession, __: Server, args: WhoIs) -> Effects:
    channel = given(args.channel)
    found: Sessions = yield Who(channel)
    scope = "server-wide" if channel is None else f"#{presentation.name(channel)}"
    return f"{scope}: {', '.join(map(presentation.line, found.sessions)) or 'nobody online'}"


class CatchUp(ToServer, frozen=True, kw_only=True):
    channel: Channel
    since: Annotated[
        str | UnsetType,
        Meta(description="How far back: 90, 30s, 10m, 2h, 7d. Unless given: what this session was not shown yet."),
    ] = UNSET
    after: Annotated[str | UnsetType, Meta(description="Where an earlier page ended, as that page says.")] = UNSET


def _catch_up(session: BridgeSession, server: Server, args: CatchUp) -> Effects:
    start = _start(session, server, args)
    page: Page = yield behind(args.channel, start, PAGE_ROWS)
    lost, more, rows = page.lost, page.more, list(page.messages)
    while more and page.messages and len(rows) < PAGE_ROWS:
        page = yield behind(args.channel, rows[-1].id, PAGE_ROWS - len(rows))
        if page.lost:  # what is behind the loss comes with the next call, which begins by saying so
            break
        rows += page.messages
        more = page.more
    shown = _fitting(rows)
    more = more or len(shown) < len(rows)
    if start == session.unread_from(server, args.channel):
        session.caught_up(server, args.channel, shown, more=more)
    default = args.since is UNSET and args.after is UNSET
    again = "" if default or not shown else f" with `after` = `{presentation.name(shown[-1].id)}`"
    return presentation.history(args.channel, Page(tuple(shown), more, lost), again)


def _start(session: BridgeSession, server: Server, args: CatchUp) -> str:
    after, since = given(args.after), given(args.since)
    if after is not None:
        if is_time(after):  # ours alone: no server's position looks like that
            raise ToolError("`after` must be what an earlier page said")
        return str(after)
    if since is None:
        return session.unread_from(server, args.channel)
    try:
        return at_time(max(0, server.now_ms() - parse(since) * 1000))
    except InvalidDuration as error:
        raise ToolError(f"invalid `since`: {error}") from error


def _fitting(rows: list[Row]) -> list[Row]:
    """Return the rows that fit on a page, one at least."""
    room = PAGE_CHARS
    for count, row in enumerate(rows):
        room -= len(row.body.text or "") + len(row.from_)
        if room < 0 and count > 0:
            return rows[:count]
    return rows


class SetPerm(ToServer, frozen=True, kw_only=True):
    wanted: ClassVar[str] = "`level` must be mute, notify, converse, or act"

    level: Annotated[Level, Meta(description="What this session may do with what it hears there.")]
    channel: Annotated[str | UnsetType, Meta(description="For this channel of the server.")] = UNSET
    whisper: Annotated[bool | UnsetType, Meta(description="For the whispers of the server.")] = UNSET


def _set_perm(session: BridgeSession, server: Server, args: SetPerm) -> Effects:
    yield from ()
    channel, whisper = given(args.channel), given(args.whisper) or False
    if channel is not None and whisper:
        raise ToolError("`channel` and `whisper` are mutually exclusive")
    if channel is not None or whisper:
        session.levels.set(server.urls, channel, args.level)
    elif given(args.server) is not None:
        raise ToolError("`server` needs an explicit scope: pass `channel` or `whisper`")
    else:
        session.levels.set_default(args.level)
    return "permission updated"


# --- Saying something ---


class SendChannel(ToServer, frozen=True, kw_only=True):
    channel: Channel
    text: Annotated[str, Meta(description="The message.")]


def _may_send(session: BridgeSession, server: Server, args: SendChannel) -> None:
    if not session.level(server, args.channel).may_emit:
        raise ToolError(f"permission denied: `{presentation.name(args.channel)}` on `{server.url}` is below `converse`")


def _send_channel(session: BridgeSession, server: Server, args: SendChannel) -> Effects:
    _may_send(session, server, args)
    body = Body(text=args.text)
    yield Send(args.channel, body, _key())
    session.said(server, args.channel, body)
    return f"sent to {presentation.name(args.channel)}"


class WhisperTo(ToServer, frozen=True, kw_only=True):
    target: Annotated[str, Meta(description="The session: user/machine/session.")]
    text: Annotated[str, Meta(description="The message.")]


def _may_whisper(session: BridgeSession, server: Server, _: WhisperTo) -> None:
    if not session.level(server, None).may_emit:
        raise ToolError(f"permission denied: whispers on `{server.url}` are below `converse`")


def _whisper(session: BridgeSession, server: Server, args: WhisperTo) -> Effects:
    try:
        SessionPath.parse(args.target)
    except InvalidName as error:
        raise ToolError("`target` must be a `user/machine/session` path") from error
    _may_whisper(session, server, args)
    yield Whisper(args.target, Body(text=args.text), _key())
    return "whisper sent"


def _key() -> str:
    """Return what a message is known by, so that one whose answer was lost can be sent again and said once."""
    return secrets.token_urlsafe(16)


# --- Ruling channels ---


class Named(ToServer, frozen=True, kw_only=True):
    name: Channel


class CreateChannel(Named, frozen=True, kw_only=True):
    visibility: Annotated[
        Visibility | UnsetType,
        Meta(description="Who finds it; unlisted is found by its name only. Public unless given."),
    ] = UNSET


def _create_channel(_: BridgeSession, server: Server, args: CreateChannel) -> Effects:
    yield ChannelCreate(args.name, given(args.visibility) or Visibility.PUBLIC)
    server.rules(args.name, admin=True)
    return presentation.name(args.name)


def _delete_channel(_: BridgeSession, server: Server, args: Named) -> Effects:
    yield from _ruling(server, args.name, ChannelDelete(args.name))
    server.drop(args.name)
    return presentation.name(args.name)


class SetVisibility(Named, frozen=True, kw_only=True):
    wanted: ClassVar[str] = "`name` and a valid `visibility` are required"

    visibility: Annotated[Visibility, Meta(description="Private takes it from the sessions of non-members.")]


def _set_visibility(_: BridgeSession, server: Server, args: SetVisibility) -> Effects:
    yield from _ruling(server, args.name, ChannelVisibility(args.name, args.visibility))
    return presentation.name(args.name)


class RenameChannel(Named, frozen=True, kw_only=True):
    new_name: Annotated[str, Meta(description="Its new name.")]


def _rename_channel(session: BridgeSession, server: Server, args: RenameChannel) -> Effects:
    yield from _ruling(server, args.name, ChannelRename(args.name, args.new_name))
    session.renamed(server, args.name, args.new_name)
    return presentation.name(args.new_name)


class OnUser(OnChannel, frozen=True, kw_only=True):
    user: User


def _on_user(request: Callable[[str, str], Request[Any]]) -> Callable[[BridgeSession, Server, OnUser], Effects]:
    def steps(_: BridgeSession, server: Server, args: OnUser) -> Effects:
        yield from _ruling(server, args.channel, request(args.channel, args.user))
        return presentation.name(args.user)

    return steps


class KickOut(OnChannel, frozen=True, kw_only=True):
    target: Annotated[str, Meta(description="A username, or one session: user/machine/session.")]


def _kick(_: BridgeSession, server: Server, args: KickOut) -> Effects:
    yield from _ruling(server, args.channel, Kick(args.channel, args.target))
    return presentation.name(args.target)


def _names(request: Callable[[str], Request[Users]]) -> Callable[[BridgeSession, Server, OnChannel], Effects]:
    def steps(_: BridgeSession, server: Server, args: OnChannel) -> Effects:
        found: Users = yield from _ruling(server, args.channel, request(args.channel))
        return ", ".join(map(presentation.line, found.users)) or "nobody"

    return steps


class CreateInvite(OnChannel, frozen=True, kw_only=True):
    uses: (
        Annotated[int, Meta(ge=1, le=2**32 - 1, description="How many users may redeem it; unlimited unless given.")]
        | UnsetType
    ) = UNSET
    expires_in_secs: (
        Annotated[int, Meta(ge=1, le=2**53, description="How long it is good, in seconds; for ever unless given.")]
        | UnsetType
    ) = UNSET


def _invite_create(_: BridgeSession, server: Server, args: CreateInvite) -> Effects:
    request = InviteCreate(args.channel, given(args.uses), given(args.expires_in_secs))
    created: Token = yield from _ruling(server, args.channel, request)
    return f"invite token: {presentation.name(created.token)}"


class RevokeInvite(ToServer, frozen=True, kw_only=True):
    token: Annotated[str, Meta(description="The invite.")]


def _invite_revoke(_: BridgeSession, __: Server, args: RevokeInvite) -> Effects:
    yield InviteRevoke(args.token)
    return presentation.name(args.token)


def _invite_list(_: BridgeSession, server: Server, args: OnChannel) -> Effects:
    found: Invites = yield from _ruling(server, args.channel, InviteList(args.channel))
    if not found.invites:
        return "no outstanding invites"
    return "\n".join(
        f"{presentation.name(invite.token)} (uses remaining: "
        f"{'unlimited' if invite.uses_remaining is None else invite.uses_remaining}, "
        f"expires: {presentation.name(invite.expires_at or 'never')})"
        for invite in found.invites
    )


def _ruling(server: Server, channel: str, request: Request[R]) -> Generator[Request[R], R, R]:
    """Ask for an operation on a channel; the answer tells whether the user administers it.

    Raises:
        ToolError: if not.
    """
    try:
        result = yield request
    except Refusal as refusal:
        if refusal.code is not Code.UNAUTHORIZED:
            raise
        server.rules(channel, admin=False)
        raise ToolError(f"not an admin on `{server.url}`") from refusal
    if not server.admin:  # whoever administers the server may do it anywhere, for as long as that lasts
        server.rules(channel, admin=True)
    return result


TOOLS = {
    tool.name: tool
    for tool in (
        Tool(
            "join_channel",
            "Join a channel: hear what is said there from now on. What was missed there is shown or announced.",
            JoinChannel,
            Offer.ALWAYS,
            _join_channel,
        ),
        Tool("leave_channel", "Leave a channel: hear no more of it.", OnChannel, Offer.ALWAYS, _leave_channel),
        Tool(
            "list_channels", "List the channels that one can see.", ToServer, Offer.ALWAYS, _list_channels, effect=False
        ),
        Tool("who", "List who is online, on the server or in a channel.", WhoIs, Offer.ALWAYS, _who, effect=False),
        Tool(
            "catch_up",
            "Read what was said in a joined channel and not shown yet, a page at a time, oldest first.",
            CatchUp,
            Offer.ALWAYS,
            _catch_up,
            effect=False,
        ),
        Tool(
            "set_perm",
            "Change a permission level for this session, only when the user asks: of a channel, of whispers, or by "
            "default. mute: hear nothing; notify: tell the user, do not answer; converse: may answer; "
            "act: may do what is asked.",
            SetPerm,
            Offer.ALWAYS,
            _set_perm,
            effect=False,
        ),
        Tool(
            "send_channel",
            "Say something in a joined channel.",
            SendChannel,
            Offer.SEND,
            _send_channel,
            permit=_may_send,
        ),
        Tool(
            "whisper",
            "Say something to one session only.",
            WhisperTo,
            Offer.WHISPER,
            _whisper,
            permit=_may_whisper,
        ),
        Tool(
            "create_channel",
            "Create a channel. Its creator administers it.",
            CreateChannel,
            Offer.ALWAYS,
            _create_channel,
        ),
        Tool(
            "delete_channel",
            "Delete a channel with everything in it. There is no way back.",
            Named,
            Offer.RULE,
            _delete_channel,
        ),
        Tool("set_visibility", "Say who finds a channel.", SetVisibility, Offer.RULE, _set_visibility),
        Tool("acl_add", "Make a user a member of a channel.", OnUser, Offer.RULE, _on_user(AclAdd)),
        Tool("acl_remove", "End a user's membership in a channel.", OnUser, Offer.RULE, _on_user(AclRemove)),
        Tool("invite_create", "Make an invite to a channel.", CreateInvite, Offer.RULE, _invite_create),
        Tool("invite_revoke", "Make an invite worthless.", RevokeInvite, Offer.RULE, _invite_revoke),
        Tool("kick", "Remove somebody from a channel; they may come back.", KickOut, Offer.RULE, _kick),
        Tool("ban", "Bar a user from a channel.", OnUser, Offer.RULE, _on_user(Ban)),
        Tool("unban", "Let a banned user into a channel again.", OnUser, Offer.RULE, _on_user(Unban)),
        Tool("rename_channel", "Give a channel another name.", RenameChannel, Offer.RULE, _rename_channel),
        Tool("acl_list", "List the members of a channel.", OnChannel, Offer.RULE, _names(AclList), effect=False),
        Tool("ban_list", "List who is banned from a channel.", OnChannel, Offer.RULE, _names(Bans), effect=False),
        Tool("invite_list", "List the invites of a channel.", OnChannel, Offer.RULE, _invite_list, effect=False),
    )
}
