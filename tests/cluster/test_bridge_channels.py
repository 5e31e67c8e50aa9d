"""A bridge and its channels, over both versions of the protocol: the first one does not say what becomes of them."""

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from conclave.machine.config import Registration
from conclave.machine.config_edit import register
from conclave.machine.locations import CONFIG_NAME
from conclave.protocol.v1 import admin
from tests.support.bridge_process import RawBridge, settle_in
from tests.support.moderation import rule
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
    await settle_in(ann, "ann", nodes[0].url)
    way: type[Proxy] = request.param
    async with way(host, int(port)) as proxy:
        found = f"ws://127.0.0.1:{proxy.port}/"
        register(ann / CONFIG_NAME, Registration(found, "ann", "laptop"))
        yield found


async def test_a_join_that_is_given_up_has_happened_all_the_same(
    nodes: list[NodeProcess], peers: Peers, ann: Path, url: str
) -> None:
    """The server has let the session in: what is said there is shown as from there, and nothing is renamed."""
    talker = await peers.register(nodes[1].url, "talker")
    for channel in ("alpha", "beta"):
        await talker.create(channel)
        await talker.join(channel)
    async with RawBridge(ann, "--as", "me", "--server", url) as one:
        await one.tool("join_channel", channel="alpha", perm="converse")
        nodes[0].pause()
        number = one.begin("join_channel", channel="beta")
        await pause(0.5)  # it is on its way, which nothing outside of the bridge shows
        one.give_up(number)
        nodes[0].resume()
        assert await one.tool("who", channel="alpha") == "#alpha: ann/laptop/me, talker/laptop/main"
        await talker.post("beta", "hello beta")
        event = await one.hear("hello beta")
        assert event["meta"]["channel"] == "beta"
        assert "below `converse`" in await one.refused("send_channel", channel="beta", text="hello")
        assert await one.tool("send_channel", channel="alpha", text="hello") == "sent to alpha"
        assert not one.said("now called")


async def test_joins_and_leaves_under_traffic_rename_nothing(
    nodes: list[NodeProcess], peers: Peers, ann: Path, url: str
) -> None:
    """Messages just before the reply to a join, or just after a leave, are attributed to no other channel."""
    talker = await peers.register(nodes[1].url, "talker")
    for channel in ("alpha", "beta"):
        await talker.create(channel)
        await talker.join(channel)

    async def chat() -> None:
        while True:
            await talker.post("beta", "hello")
            await pause(0.002)  # a bridge over v1 reads the history for each of them

    async with RawBridge(ann, "--as", "me", "--server", url) as one:
        await one.tool("join_channel", channel="alpha", perm="converse")
        chatting = asyncio.create_task(chat())
        for _ in range(by_form(5, 20, 200)):
            await one.tool("join_channel", channel="beta")
            await one.tool("leave_channel", channel="beta")
        chatting.cancel()
        assert one.said("hello")
        assert not one.said("now called")
        assert await one.tool("send_channel", channel="alpha", text="hello") == "sent to alpha"


async def test_a_channel_is_followed_through_a_rename(
    nodes: list[NodeProcess], peers: Peers, ann: Path, url: str
) -> None:
    """With its level. Over the first version of the protocol nobody says so, and the server is asked."""
    talker = await peers.register(nodes[1].url, "talker")
    for channel in ("alpha", "beta"):
        await talker.create(channel)
        await talker.join(channel)
    async with RawBridge(ann, "--as", "me", "--server", url) as one:
        await one.tool("join_channel", channel="alpha", perm="converse")
        await one.tool("join_channel", channel="beta")
        await rule(talker, admin.RenameChannel("alpha", "gamma"))
        await talker.post("gamma", "hello gamma")
        await one.hear("#alpha is now called #gamma.")
        assert (await one.hear("hello gamma"))["meta"]["channel"] == "gamma"
        assert await one.tool("send_channel", channel="gamma", text="hello") == "sent to gamma"


async def test_somebody_who_was_kicked_stays_out_and_connected(
    nodes: list[NodeProcess], peers: Peers, ann: Path, url: str
) -> None:
    """The bridge notices when it looks for a message's position; a removed session rejoins only by its own request."""
    talker = await peers.register(nodes[1].url, "talker")
    await talker.create("ops")
    await talker.join("ops")
    async with RawBridge(ann, "--as", "me", "--server", url) as one:
        await one.tool("join_channel", channel="ops")
        await talker.post("ops", "hello")
        await one.hear("hello")
        await rule(talker, admin.Kick("ops", "ann"))
        await wait_until(lambda: len(one.events) == 2, timeout=30, what="it is told")
        assert re.search(r"does not hear #ops any more|was removed from #ops", one.events[1]["content"])
        assert await one.tool("who", channel="ops") == "#ops: talker/laptop/main"
