"""A bridge and its channels, over both versions of the protocol; v1 does not report changes."""

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from conclave.machine.config import Registration
from conclave.machine.config_edit import register
from conclave.machine.locations import CONFIG_NAME
from conclave.protocol.v1 import admin
from tests.support.bridge_process import RawBridge, configure_home
from tests.support.moderation import administer
from tests.support.nodes import NodeProcess
from tests.support.peer import Peers
from tests.support.proxy import Proxy, V1Only
from tests.support.trials import by_form
from tests.support.waiting import pause, wait_until


@pytest.fixture
def ann(tmp_path: Path) -> Path:
    """Ann's configuration directory."""
    home = tmp_path / "ann"
    home.mkdir()
    return home


@pytest.fixture(params=[Proxy, V1Only], ids=["v2", "v1"])
async def url(request: pytest.FixtureRequest, nodes: list[NodeProcess], ann: Path) -> AsyncIterator[str]:
    """The way of ann's bridges to the first node."""
    host, _, port = nodes[0].address.rpartition(":")
    await configure_home(ann, "ann", nodes[0].url)
    way: type[Proxy] = request.param
    async with way(host, int(port)) as proxy:
        found = f"ws://127.0.0.1:{proxy.port}/"
        register(ann / CONFIG_NAME, Registration(found, "ann", "laptop"))
        yield found


async def test_a_join_that_is_given_up_has_happened_all_the_same(
    nodes: list[NodeProcess], peers: Peers, ann: Path, url: str
) -> None:
    """The server has completed the join: messages are shown as the channel's, and nothing is renamed."""
    poster = await peers.register_creator(nodes[1].url, "poster", "alpha", "beta")
    async with RawBridge(ann, "--as", "me", "--server", url) as one:
        await one.tool("join_channel", channel="alpha", perm="converse")
        nodes[0].pause()
        number = one.begin("join_channel", channel="beta")
        await pause(0.5)  # it is on its way, which nothing outside of the bridge shows
        one.give_up(number)
        nodes[0].resume()
        assert await one.tool("who", channel="alpha") == "#alpha: ann/laptop/me, poster/laptop/main"
        await poster.post("beta", "hello beta")
        event = await one.wait_for_event("hello beta")
        assert event["meta"]["channel"] == "beta"
        assert "below `converse`" in await one.refused("send_channel", channel="beta", text="hello")
        assert await one.tool("send_channel", channel="alpha", text="hello") == "sent to alpha"
        assert not one.events_with("now called")


async def test_joins_and_leaves_under_traffic_rename_nothing(
    nodes: list[NodeProcess], peers: Peers, ann: Path, url: str
) -> None:
    """Messages just before the reply to a join, or just after a leave, are attributed to no other channel."""
    poster = await peers.register_creator(nodes[1].url, "poster", "alpha", "beta")

    async def chat() -> None:
        while True:
            await poster.post("beta", "hello")
            await pause(0.002)  # a bridge over v1 reads the history for each of them

    async with RawBridge(ann, "--as", "me", "--server", url) as one:
        await one.tool("join_channel", channel="alpha", perm="converse")
        chatting = asyncio.create_task(chat())
        for _ in range(by_form(5, 20, 200)):
            await one.tool("join_channel", channel="beta")
            await one.tool("leave_channel", channel="beta")
        chatting.cancel()
        assert one.events_with("hello")
        assert not one.events_with("now called")
        assert await one.tool("send_channel", channel="alpha", text="hello") == "sent to alpha"


async def test_a_channel_is_followed_through_a_rename(
    nodes: list[NodeProcess], peers: Peers, ann: Path, url: str
) -> None:
    """With its level. Over v1 the rename is not reported, and the bridge has to ask the server."""
    poster = await peers.register_creator(nodes[1].url, "poster", "alpha", "beta")
    async with RawBridge(ann, "--as", "me", "--server", url) as one:
        await one.tool("join_channel", channel="alpha", perm="converse")
        await one.tool("join_channel", channel="beta")
        await administer(poster, admin.RenameChannel("alpha", "gamma"))
        await poster.post("gamma", "hello gamma")
        await one.wait_for_event("#alpha is now called #gamma.")
        assert (await one.wait_for_event("hello gamma"))["meta"]["channel"] == "gamma"
        assert await one.tool("send_channel", channel="gamma", text="hello") == "sent to gamma"


async def test_a_kicked_session_stays_out_and_connected(
    nodes: list[NodeProcess], peers: Peers, ann: Path, url: str
) -> None:
    """The bridge notices when it looks for a message's position; a removed session rejoins only by its own request."""
    poster = await peers.register_creator(nodes[1].url, "poster", "ops")
    async with RawBridge(ann, "--as", "me", "--server", url) as one:
        await one.tool("join_channel", channel="ops")
        await poster.post("ops", "hello")
        await one.wait_for_event("hello")
        await administer(poster, admin.Kick("ops", "ann"))
        await wait_until(lambda: len(one.events) == 2, timeout=30, what="it is told")
        assert re.search(r"does not hear #ops any more|was removed from #ops", one.events[1]["content"])
        assert await one.tool("who", channel="ops") == "#ops: poster/laptop/main"
