"""A bridge and its connections: several ways to one cluster, ways to none, and what waits for one."""

import asyncio
from pathlib import Path

import pytest

from conclave.machine.config import Level, Override, Registration
from conclave.machine.config_edit import register, set_override
from conclave.machine.keys import create_or_load
from conclave.machine.locations import CONFIG_NAME, KEY_NAME
from tests.support.bridge_process import RawBridge, configure_home
from tests.support.nodes import NodeProcess
from tests.support.peer import Peers
from tests.support.proxy import Proxy
from tests.support.waiting import wait_until

URL = "ws://127.0.0.1:{}/"


@pytest.fixture
def ann(tmp_path: Path) -> Path:
    """Ann's configuration directory."""
    home = tmp_path / "ann"
    home.mkdir()
    return home


class Door(Proxy):
    """Lets no caller pass until it is opened."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__(host, port)
        self.opened = asyncio.Event()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self.opened.wait()
        await super()._accept(reader, writer)


async def test_two_ways_to_one_cluster_are_found_at_the_same_moment(nodes: list[NodeProcess], ann: Path) -> None:
    """Both were told that a third one owns the name; the first to act makes that untrue for the other."""
    host, _, port = nodes[0].address.rpartition(":")
    async with Door(host, int(port)) as first, Door(host, int(port)) as second:
        urls = [URL.format(door.port) for door in (first, second)]
        create_or_load(ann / KEY_NAME)
        for url in urls:
            register(ann / CONFIG_NAME, Registration(url, "ann", "laptop"))
        await configure_home(ann, "ann", nodes[0].url)
        async with RawBridge(ann, "--as", "me") as one:
            assert "ann/laptop/me" in await one.tool("who", server=nodes[0].url)
            first.opened.set()
            second.opened.set()
            for url in (urls[1], nodes[0].url):
                await one.wait_for_event(f"`{url}` is the same server as")
            assert await one.tool("who") == await one.tool("who", server=urls[1]) == "server-wide: ann/laptop/me"
            assert await one.end() == 0


async def test_a_server_that_cannot_be_dialled_leaves_the_others(nodes: list[NodeProcess], ann: Path) -> None:
    """A user wrote it into the file by hand. An error is shown once, and the session goes on with the other servers."""
    await configure_home(ann, "ann", nodes[0].url, "http://x.example", "wss://user@host", "ws://[::1")
    async with RawBridge(ann, "--as", "me") as one:
        assert "ann/laptop/me" in await one.tool("who", server=nodes[0].url)
        for url in ("http://x.example", "wss://user@host", "ws://[::1"):
            await one.wait_for_event(f"Not connected: invalid server URL `{url}`")
            assert "not connected" in await one.refused("who", server=url)
        assert len(one.events) == 3
        assert await one.end() == 0


async def test_a_lowered_level_holds_back_waiting_messages(nodes: list[NodeProcess], peers: Peers, ann: Path) -> None:
    """Muting is effective at once, also for messages that wait for a connection."""
    watcher = await peers.register(nodes[1].url, "watcher")
    await watcher.create("ops")
    await watcher.join("ops")
    host, _, port = nodes[0].address.rpartition(":")
    await configure_home(ann, "ann", nodes[0].url)
    async with Proxy(host, int(port)) as proxy:
        url = URL.format(proxy.port)
        register(ann / CONFIG_NAME, Registration(url, "ann", "laptop"))
        set_override(ann / CONFIG_NAME, Override(url, Level.CONVERSE, "ops"))
        async with RawBridge(ann, "--as", "me", "--server", url) as one:
            await one.tool("join_channel", channel="ops")
            changed = one.lists_changed
            proxy.cut()
            await wait_until(lambda: any("connect failed" in line for line in one.log), what="the bridge has noticed")
            saying = asyncio.create_task(one.refused("send_channel", channel="ops", text="too late"))
            set_override(ann / CONFIG_NAME, Override(url, Level.MUTE, "ops"))
            await wait_until(lambda: one.lists_changed > changed)
            proxy.mend()
            assert "below `converse`" in await saying
            await one.tool("who")


async def test_calls_after_a_lost_answer_wait_for_the_next_connection(nodes: list[NodeProcess], ann: Path) -> None:
    """Nothing of them was sent on the old one, so there is nothing to wonder about."""
    host, _, port = nodes[0].address.rpartition(":")
    await configure_home(ann, "ann", nodes[0].url)
    async with Proxy(host, int(port)) as proxy:
        url = URL.format(proxy.port)
        register(ann / CONFIG_NAME, Registration(url, "ann", "laptop"))
        async with RawBridge(ann, "--as", "me", "--server", url) as one:
            await one.tool("who")
            proxy.swallow()
            assert "it may have happened" in await one.refused("create_channel", name="ops")
            assert await one.tool("create_channel", name="dev") == "dev"
