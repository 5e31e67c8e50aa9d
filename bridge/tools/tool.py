"""The row of a tool: its name, its arguments, the sessions that it is offered to, and its effects."""

import enum
from collections.abc import Callable
from typing import Any

import msgspec

from bridge.session.effects import Effects
from bridge.session.servers import Server
from bridge.session.session import BridgeSession
from bridge.tools.arguments import Arguments


class Offer(enum.Enum):
    """The condition under which a tool is listed."""

    ALWAYS = "always"
    SEND = "when a joined channel lets the agent answer"
    WHISPER = "when whispers let the agent answer"
    ADMIN = "to admins of a server, and of a channel"


def _always(_: BridgeSession, __: Server, ___: Any) -> None:
    """Permit everything: the server decides."""


class Tool(msgspec.Struct, frozen=True):
    """One tool. `idempotent` tells that a second call changes nothing.

    `permit` raises ToolError if the tool may not ask the server at the moment: the level may change while a call waits
    for a connection.
    """

    name: str
    description: str
    takes: type[Arguments]
    offer: Offer
    effects: Callable[[BridgeSession, Server, Any], Effects[str]]
    idempotent: bool = False
    permit: Callable[[BridgeSession, Server, Any], None] = _always
