"""The tools that send a message."""

import secrets
from typing import Annotated

from msgspec import Meta

from bridge.errors import ToolError
from bridge.session import presentation
from bridge.session.effects import Effects
from bridge.session.servers import Server
from bridge.session.session import BridgeSession
from bridge.tools.arguments import Channel, ToServer
from conclave.errors import InvalidName
from conclave.model import SessionPath
from conclave.protocol.body import Body
from conclave.protocol.requests import Send, Whisper


class SendChannel(ToServer, frozen=True, kw_only=True):
    channel: Channel
    text: Annotated[str, Meta(description="The message.")]


def may_send(session: BridgeSession, server: Server, args: SendChannel) -> None:
    if not session.level(server, args.channel).may_emit:
        raise ToolError(f"permission denied: `{presentation.name(args.channel)}` on `{server.url}` is below `converse`")


def send_channel(session: BridgeSession, server: Server, args: SendChannel) -> Effects[str]:
    may_send(session, server, args)
    body = Body(text=args.text)
    yield Send(args.channel, body, _idempotency_key())
    session.sent(server, args.channel, body)
    return f"sent to {presentation.name(args.channel)}"


class WhisperTo(ToServer, frozen=True, kw_only=True):
    target: Annotated[str, Meta(description="The session: user/machine/session.")]
    text: Annotated[str, Meta(description="The message.")]


def may_whisper(session: BridgeSession, server: Server, _: WhisperTo) -> None:
    if not session.level(server, None).may_emit:
        raise ToolError(f"permission denied: whispers on `{server.url}` are below `converse`")


def whisper(session: BridgeSession, server: Server, args: WhisperTo) -> Effects[str]:
    try:
        SessionPath.parse(args.target)
    except InvalidName as error:
        raise ToolError("`target` must be a `user/machine/session` path") from error
    may_whisper(session, server, args)
    yield Whisper(args.target, Body(text=args.text), _idempotency_key())
    return "whisper sent"


def _idempotency_key() -> str:
    """Return an idempotency key, so a message whose answer is lost can be sent again and is posted once."""
    return secrets.token_urlsafe(16)
