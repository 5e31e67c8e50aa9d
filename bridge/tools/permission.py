"""The tool that changes a permission level."""

from typing import Annotated, ClassVar

from msgspec import UNSET, Meta, UnsetType

from bridge.errors import ToolError
from bridge.session.effects import Effects
from bridge.session.servers import Server
from bridge.session.session import BridgeSession
from bridge.tools.arguments import ToServer, given
from conclave.machine.config import Level


class SetPerm(ToServer, frozen=True, kw_only=True):
    wanted: ClassVar[str] = "`level` must be mute, notify, converse, or act"

    level: Annotated[Level, Meta(description="What this session may do with what it hears there.")]
    channel: Annotated[str | UnsetType, Meta(description="For this channel of the server.")] = UNSET
    whisper: Annotated[bool | UnsetType, Meta(description="For the whispers of the server.")] = UNSET


def set_perm(session: BridgeSession, server: Server, args: SetPerm) -> Effects[str]:
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
