"""The tools of every session: join, leave, list."""

from typing import Annotated

from msgspec import UNSET, Meta, UnsetType

from bridge.session import presentation
from bridge.session.effects import Effects
from bridge.session.servers import Server
from bridge.session.session import BridgeSession
from bridge.tools.arguments import Channel, OnChannel, ToServer, given
from conclave.machine.config import Level
from conclave.protocol.requests import ChannelRow, Channels, Leave, ListChannels, Sessions, Who


class JoinChannel(ToServer, frozen=True, kw_only=True):
    channel: Channel
    token: Annotated[str | UnsetType, Meta(description="An invite to the channel.")] = UNSET
    perm: Annotated[Level | UnsetType, Meta(description="Level of the channel, for this session.")] = UNSET


def join_channel(session: BridgeSession, server: Server, args: JoinChannel) -> Effects[str]:
    level = given(args.perm)
    if level is not None:
        session.levels.check(server.urls, args.channel, level)
    channel = yield from session.join(server, args.channel, given(args.token), level)
    return f"joined {presentation.name(channel)}"


def leave_channel(_: BridgeSession, server: Server, args: OnChannel) -> Effects[str]:
    server.begin_leave(args.channel)
    yield Leave(args.channel)
    server.remove(args.channel)
    return f"left {presentation.name(args.channel)}"


def list_channels(_: BridgeSession, __: Server, ___: ToServer) -> Effects[str]:
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


def who(_: BridgeSession, __: Server, args: WhoIs) -> Effects[str]:
    channel = given(args.channel)
    found: Sessions = yield Who(channel)
    scope = "server-wide" if channel is None else f"#{presentation.name(channel)}"
    return f"{scope}: {', '.join(map(presentation.line, found.sessions)) or 'nobody online'}"
