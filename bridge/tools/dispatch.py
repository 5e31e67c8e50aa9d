"""The dispatch of a call to its tool, and the list of the tools that are offered now. Pure."""

from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec

from bridge.errors import ToolError
from bridge.session.effects import Effects
from bridge.session.servers import Server
from bridge.session.session import BridgeSession
from bridge.tools import arguments
from bridge.tools.table import TOOLS
from bridge.tools.tool import Offer, Tool


class ToolInvocation(msgspec.Struct, frozen=True):
    """A call with checked arguments: its tool, its server and its effects.

    `permit` is to be called before each request; it raises ToolError if the tool may not ask the server any more.
    """

    tool: Tool
    server: Server
    effects: Effects[str]
    permit: Callable[[], None]


def listed(session: BridgeSession) -> list[dict[str, Any]]:
    """Return the tools that are offered now, as MCP lists them."""
    offers = offered(session)
    return [
        {"name": tool.name, "description": tool.description, "inputSchema": arguments.schema(tool.takes)}
        for tool in TOOLS.values()
        if tool.offer in offers
    ]


def offered(session: BridgeSession) -> frozenset[Offer]:
    """Return the kinds of tools that make sense now. A tool that is not listed can be called; its checks refuse it."""
    offers = {Offer.ALWAYS}
    for server in session.servers:
        if any(session.level(server, channel).may_emit for channel in server.channels):
            offers.add(Offer.SEND)
        if session.level(server, None).may_emit:
            offers.add(Offer.WHISPER)
        if server.admin or server.administered:
            offers.add(Offer.ADMIN)
    return frozenset(offers)


def begin(session: BridgeSession, name: str, given: dict[str, Any]) -> ToolInvocation:
    """Resolve a call: first the server, then the arguments.

    Raises:
        ToolError: if there is no such tool or no such server.
        BadArguments: if the arguments are not what the tool takes.
    """
    tool = TOOLS.get(name)
    if tool is None:
        raise ToolError(f"unknown tool `{name}`")
    server = _server(session, tool, given)
    read = arguments.read(tool.takes, given)
    permit = partial(tool.permit, session, server, read)
    return ToolInvocation(tool, server, tool.effects(session, server, read), permit)


def _server(session: BridgeSession, tool: Tool, given: dict[str, Any]) -> Server:
    url = given.get("server")
    if isinstance(url, str):
        for server in session.servers:
            if server.is_at(url):
                return server
        raise ToolError(f"not connected to server `{url}`")
    scoped = given.get("channel") is not None or bool(given.get("whisper"))
    if len(session.servers) > 1 and (tool.name != "set_perm" or scoped):
        raise ToolError("multiple servers connected; pass `server`")
    return session.servers[0]
