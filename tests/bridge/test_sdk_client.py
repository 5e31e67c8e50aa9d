"""The official SDK's client on the other side: somebody else's reading of the protocol."""

import asyncio
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

from conclave import __version__
from tests.bridge.child import SECONDS


@pytest.fixture
def sdk() -> ModuleType:
    """The SDK's client, imported when it is needed."""
    return import_module("tests.bridge.sdk_session")


async def test_the_sdk_finds_a_channel_with_tools(tmp_path: Path, sdk: ModuleType) -> None:
    """It validates every answer against the schema of the negotiated revision."""
    ear = sdk.Ear()
    async with sdk.connected(tmp_path, ear) as session:
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
        assert sdk.text_of(await session.call_tool("echo", {"text": "hello\u2028there"})) == ("hello\u2028there", False)
        assert sdk.text_of(await session.call_tool("echo", {})) == ("internal error", True)
        await session.send_ping()


async def test_the_sdk_hears_events_and_that_tools_changed(tmp_path: Path, sdk: ModuleType) -> None:
    """Custom notifications and standard ones come on one stream."""
    ear = sdk.Ear()
    async with sdk.connected(tmp_path, ear) as session:
        await session.initialize()
        early = {(await ear.events.get()).content for _ in range(3)}
        assert sdk.text_of(await session.call_tool("push", {"count": 2})) == ("pushed", False)
        assert {(await ear.events.get()).content for _ in range(2)} == {"0", "1"}
        assert isinstance(await ear.others.get(), sdk.ToolListChangedNotification)
        assert len(early) == 3


async def test_a_call_that_the_sdk_gives_up_is_cancelled(tmp_path: Path, sdk: ModuleType) -> None:
    """It sends `notifications/cancelled` when its caller's time is over, and then expects no answer."""
    ear = sdk.Ear()
    async with sdk.connected(tmp_path, ear) as session:
        await session.initialize()
        with pytest.raises(sdk.MCPError):
            await session.call_tool("wait", {}, read_timeout_seconds=0.1)
        assert sdk.text_of(await session.call_tool("echo", {"text": "on we go"})) == ("on we go", False)
    assert "cancelled wait" in (tmp_path / "stderr").read_text()


async def test_a_client_that_probes_for_a_later_revision_comes_back_to_ours(tmp_path: Path, sdk: ModuleType) -> None:
    """As newer clients do: `server/discover` first, `initialize` when that is unknown. Later ones have no channel."""
    with (tmp_path / "stderr").open("w") as errors:
        async with (
            asyncio.timeout(SECONDS),
            sdk.Client(sdk.stdio_client(sdk.SERVER, errlog=errors), mode="auto") as client,
        ):
            assert client.session.protocol_version == "2025-11-25"
            assert sdk.text_of(await client.call_tool("echo", {"text": "hello"})) == ("hello", False)
