"""Our clients on connections that break, in both versions: each message is delivered once, and posted once."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from conclave.machine.config import Level
from conclave.machine.config_edit import set_default
from conclave.machine.locations import CONFIG_NAME
from tests.support.bridge_process import RawBridge, configure_home
from tests.support.command_line import start
from tests.support.nodes import NodeProcess
from tests.support.peer import Peers
from tests.support.proxy import Proxy, V1Only
from tests.support.trials import by_form
from tests.support.v2_peer import V2Peer
from tests.support.waiting import pause, wait_until

COUNT = by_form(15, 40, 400)
CUTS = by_form(2, 5, 50)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A configuration directory whose owner lets sessions answer."""
    set_default(tmp_path / CONFIG_NAME, Level.CONVERSE)
    return tmp_path


@contextlib.asynccontextmanager
async def way(node: NodeProcess, version: int) -> AsyncIterator[tuple[Proxy, str]]:
    """A way to a node that can be cut, on which a version is spoken; and its URL."""
    host, _, port = node.address.rpartition(":")
    async with {1: V1Only, 2: Proxy}[version](host, int(port)) as proxy:
        yield proxy, f"ws://127.0.0.1:{proxy.port}/"


async def cut_now_and_then(proxy: Proxy, times: int) -> None:
    for _ in range(times):
        await pause(0.7)
        proxy.cut()
        await pause(0.1)
        proxy.mend()


@pytest.mark.parametrize("version", [1, 2])
async def test_a_bridge_shows_each_message_once_and_in_order(
    nodes: list[NodeProcess], peers: Peers, home: Path, version: int
) -> None:
    """Across lost connections, including the messages in between."""
    poster = await peers.register_creator(nodes[1].url, "poster", "ops")
    async with way(nodes[0], version) as (proxy, url):
        await configure_home(home, "ann", url)
        async with RawBridge(home, "--as", "me") as one:
            await one.tool("join_channel", channel="ops")
            cutting = asyncio.create_task(cut_now_and_then(proxy, CUTS))
            for number in range(COUNT):
                await poster.post("ops", f"number {number}.")
                await pause(0.1)
            await cutting
            await one.wait_for_event(f"number {COUNT - 1}.")
            received = [event["content"] for event in one.events if event["meta"]["kind"] == "channel"]
            assert [text.split("number ")[1].split(".")[0] for text in received] == [str(n) for n in range(COUNT)]


async def test_a_bridge_posts_each_message_once(nodes: list[NodeProcess], peers: Peers, home: Path) -> None:
    """A send whose reply was lost is repeated with its key, so most agents do not notice; none is posted twice."""
    listener = await peers.register(nodes[1].url, "listener")
    await listener.create("ops")
    await listener.join("ops")
    async with way(nodes[0], 2) as (proxy, url):
        await configure_home(home, "ann", url)
        async with RawBridge(home, "--as", "me") as one:
            await one.tool("join_channel", channel="ops")
            cutting = asyncio.create_task(cut_now_and_then(proxy, CUTS))
            sent: list[str] = []
            while not cutting.done():
                text = f"number {len(sent)}."
                assert await one.tool("send_channel", channel="ops", text=text) == "sent to ops"
                sent.append(text)
            await cutting
            reader = await V2Peer.register(nodes[2].url, "reader")
            try:
                await reader.join("ops")
                rows = await reader.history("ops")
            finally:
                await reader.close()
            assert [row["body"]["text"] for row in rows] == sent


@pytest.mark.parametrize("version", [1, 2])
async def test_tail_prints_each_message_once_and_in_order(
    nodes: list[NodeProcess], peers: Peers, home: Path, version: int
) -> None:
    """From the history before, through live messages and those of an interruption, without a gap."""
    poster = await peers.register_creator(nodes[1].url, "poster", "ops")
    for number in range(5):
        await poster.post("ops", f"{number}")
    async with way(nodes[0], version) as (proxy, url):
        await configure_home(home, "ann", url)
        process = await start(home, "tail", "--server", url, "--channel", "ops", "--since", "1h")
        assert process.stdout is not None
        lines: list[str] = []

        async def read(stream: asyncio.StreamReader) -> None:
            async for line in stream:
                lines.append(line.decode().rstrip())  # noqa: PERF401 - as they come

        reading = asyncio.create_task(read(process.stdout))
        try:
            await wait_until(lambda: len(lines) == 6)
            cutting = asyncio.create_task(cut_now_and_then(proxy, 2))
            for number in range(5, COUNT):
                await poster.post("ops", f"{number}")
                await pause(0.1)
            await cutting
            await wait_until(lambda: lines[-1].endswith(f": {COUNT - 1}"), timeout=60)
        finally:
            process.terminate()
            await process.wait()
            await reading
        assert lines[1:] == [f"[ops] poster/laptop/main: {number}" for number in range(COUNT)]


async def test_a_bridge_is_told_at_once_of_changes_of_its_channels(nodes: list[NodeProcess], home: Path) -> None:
    """A v2 server reports them; over v1 they show at the next message, or never."""
    await configure_home(home, "ann", nodes[0].url)
    owner = await V2Peer.register(nodes[1].url, "owner")
    try:
        for channel in ("ops", "dev"):
            await owner.create(channel)
        async with RawBridge(home, "--as", "me") as one:
            await one.tool("join_channel", channel="ops")
            await one.tool("join_channel", channel="dev")
            await owner.ask("channel.rename", channel="ops", to="works")
            await one.wait_for_event("#ops is now called #works")
            await owner.ask("kick", channel="works", target="ann")
            await one.wait_for_event("This session was removed from #works")
            await owner.ask("channel.delete", channel="dev")
            await one.wait_for_event("#dev was deleted")
            assert "below `converse`" not in await one.refused("send_channel", channel="dev", text="x")
    finally:
        await owner.close()
