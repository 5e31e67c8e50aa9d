"""Sessions of the official SDK with the small bridge. Import it in a fixture: the SDK takes seconds."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from mcp import Client, ClientSession, MCPError, StdioServerParameters, stdio_client
from mcp.client.extension import NotificationBinding
from mcp.types import CallToolResult, ServerNotification, TextContent, ToolListChangedNotification
from pydantic import BaseModel

from tests.bridge.child import PROGRAM, SECONDS

__all__ = ["Client", "Ear", "MCPError", "ToolListChangedNotification", "connected", "stdio_client", "text_of"]

SERVER = StdioServerParameters(command=sys.executable, args=[str(PROGRAM), "early"], env=dict(os.environ))


class ChannelEvent(BaseModel):
    """The parameters of an event as Claude Code knows them."""

    content: str
    meta: dict[str, str]


class Ear:
    """The events of the session, as they arrive."""

    def __init__(self) -> None:
        self.events: asyncio.Queue[ChannelEvent] = asyncio.Queue()
        self.others: asyncio.Queue[ServerNotification] = asyncio.Queue()

    async def event(self, event: ChannelEvent) -> None:
        self.events.put_nowait(event)

    async def other(self, message: ServerNotification | Exception) -> None:
        if isinstance(message, Exception):
            raise message
        self.others.put_nowait(message)


@asynccontextmanager
async def connected(directory: Path, ear: Ear) -> AsyncIterator[ClientSession]:
    """Connect a session that listens to the channel, as an extension of the client does."""
    binding = NotificationBinding(method="notifications/claude/channel", params_type=ChannelEvent, handler=ear.event)
    with (directory / "stderr").open("w") as errors:
        async with (
            asyncio.timeout(SECONDS),
            stdio_client(SERVER, errlog=errors) as (read, write),
            ClientSession(read, write, message_handler=ear.other, notification_bindings=[binding]) as session,
        ):
            yield session


def text_of(result: object) -> tuple[str, bool]:
    assert isinstance(result, CallToolResult)
    (content,) = result.content
    assert isinstance(content, TextContent)
    return content.text, bool(result.is_error)
