"""The bridge with the official SDK's client, an independent implementation of the protocol."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from mcp import Client, ClientSession, MCPError, StdioServerParameters, stdio_client
from mcp.client.extension import NotificationBinding
from mcp.types import CallToolResult, ServerNotification, TextContent, ToolListChangedNotification
from pydantic import BaseModel

from conclave import __version__
from tests.bridge.child import PROGRAM, SECONDS

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
    """Connect a session that receives channel events, as an extension of the client does."""
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


async def test_the_sdk_finds_a_channel_with_tools(tmp_path: Path) -> None:
    """It validates every answer against the schema of the negotiated revision."""
    ear = Ear()
    async with connected(tmp_path, ear) as session:
        greeting = await session.initialize()
        assert greeting.protocol_version == "2025-11-25"
        assert (greeting.server_info.name, greeting.server_info.version) == ("conclave", __version__)
        assert greeting.capabilities.experimental == {"claude/channel": {}}
        assert greeting.capabilities.tools is not None
        assert greeting.capabilities.tools.list_changed
        early = [await ear.events.get() for _ in range(3)]
        assert sorted(event.content for event in early) == ["early 0", "early 1", "early 2"]
        assert early[0].meta == {"kind": "link"}
        assert [tool.name for tool in (await session.list_tools()).tools] == ["echo"]
        assert text_of(await session.call_tool("echo", {"text": "hello\u2028there"})) == ("hello\u2028there", False)
        assert text_of(await session.call_tool("echo", {})) == ("internal error", True)
        await session.send_ping()


async def test_the_sdk_receives_events_and_changes_of_the_tools(tmp_path: Path) -> None:
    """Custom notifications and standard ones come on one stream."""
    ear = Ear()
    async with connected(tmp_path, ear) as session:
        await session.initialize()
        early = {(await ear.events.get()).content for _ in range(3)}
        assert text_of(await session.call_tool("push", {"count": 2})) == ("pushed", False)
        assert {(await ear.events.get()).content for _ in range(2)} == {"0", "1"}
        assert isinstance(await ear.others.get(), ToolListChangedNotification)
        assert len(early) == 3


async def test_a_call_that_the_sdk_gives_up_is_cancelled(tmp_path: Path) -> None:
    """It sends `notifications/cancelled` when its caller's time is over, and then expects no answer."""
    ear = Ear()
    async with connected(tmp_path, ear) as session:
        await session.initialize()
        with pytest.raises(MCPError):
            await session.call_tool("wait", {}, read_timeout_seconds=0.1)
        assert text_of(await session.call_tool("echo", {"text": "on we go"})) == ("on we go", False)
    assert "cancelled wait" in (tmp_path / "stderr").read_text()


async def test_a_client_that_probes_for_a_later_revision_falls_back_to_ours(tmp_path: Path) -> None:
    """As newer clients do: `server/discover` first, `initialize` when that is unknown. Later ones have no channel."""
    with (tmp_path / "stderr").open("w") as errors:
        async with asyncio.timeout(SECONDS), Client(stdio_client(SERVER, errlog=errors), mode="auto") as client:
            assert client.session.protocol_version == "2025-11-25"
            assert text_of(await client.call_tool("echo", {"text": "hello"})) == ("hello", False)
