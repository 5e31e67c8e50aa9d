"""Bridges as Claude Code runs them, on nodes as operators run them: driven with raw lines, and by the official SDK."""

import asyncio
import time
from pathlib import Path

import pytest

from conclave.client.link import connect
from conclave.machine.config import Level, Override, Registration
from conclave.machine.config_edit import register, set_override
from conclave.machine.keys import create_or_load
from conclave.machine.locations import CONFIG_NAME, KEY_NAME
from tests.support.bridge_process import RawBridge, SdkBridge, configure_home
from tests.support.hostile import BODIES, opens_a_tag
from tests.support.nodes import NodeProcess
from tests.support.peer import Peers
from tests.support.proxy import Proxy
from tests.support.waiting import pause, wait_until

URL = "ws://127.0.0.1:{}/"

Start = type[RawBridge] | type[SdkBridge]


@pytest.fixture(params=[RawBridge, SdkBridge], ids=["raw", "sdk"])
def bridge(request: pytest.FixtureRequest) -> Start:
    """A function that starts a bridge with one of the two clients; for what depends on how a client reads MCP."""
    start: Start = request.param
    return start


@pytest.fixture
def ann(tmp_path: Path) -> Path:
    """Ann's configuration directory."""
    home = tmp_path / "ann"
    home.mkdir()
    return home


@pytest.fixture
def bob(tmp_path: Path) -> Path:
    home = tmp_path / "bob"
    home.mkdir()
    return home


async def test_a_conversation_on_two_nodes(bridge: Start, nodes: list[NodeProcess], ann: Path, bob: Path) -> None:
    """The product in one test: a message that one session sends is an event in another, and so is the answer."""
    await configure_home(ann, "ann", nodes[0].url)
    await configure_home(bob, "bob", nodes[1].url)
    async with bridge(ann, "--as", "one") as one, bridge(bob, "--as", "two") as two:
        await one.tool("create_channel", name="ops")
        assert await one.tool("join_channel", channel="ops", perm="converse") == "joined ops"
        assert await two.tool("join_channel", channel="ops", perm="converse") == "joined ops"
        assert await one.tool("who", channel="ops") == "#ops: ann/laptop/one, bob/laptop/two"
        assert await one.tool("send_channel", channel="ops", text="is the deploy done?") == "sent to ops"
        event = await two.wait_for_event("is the deploy done?")
        assert event["meta"] == {
            "server": nodes[1].url,
            "channel": "ops",
            "from": "ann/laptop/one",
            "kind": "channel",
        }
        assert await two.tool("set_perm", whisper=True, level="converse") == "permission updated"
        assert await two.tool("whisper", target="ann/laptop/one", text="it is") == "whisper sent"
        assert (await one.wait_for_event("it is"))["meta"]["kind"] == "whisper"
        assert not one.events_with("is the deploy done?"), "a session does not receive its own messages"
        assert await one.end() == 0
        assert await two.end() == 0


async def test_tools_are_offered_when_they_make_sense(
    bridge: Start, nodes: list[NodeProcess], ann: Path, bob: Path
) -> None:
    """An agent that may not post lacks the tool; the creator of a channel gets the admin tools, and a notification."""
    await configure_home(ann, "ann", nodes[0].url)
    await configure_home(bob, "bob", nodes[0].url)
    async with bridge(ann) as one, bridge(bob) as two:
        await wait_until(lambda: one.tool("list_channels"))
        assert {"send_channel", "whisper", "kick"}.isdisjoint(await one.tools())
        await one.tool("create_channel", name="ops")
        await wait_until(lambda: one.lists_changed == 1)
        assert "kick" in await one.tools()
        await one.tool("join_channel", channel="ops", perm="converse")
        assert "send_channel" in await one.tools()
        await two.tool("join_channel", channel="ops")
        assert "kick" not in await two.tools()
        assert "not an admin" in await two.refused("kick", channel="ops", target="ann")
        assert "below `converse`" in await two.refused("send_channel", channel="ops", text="hello")


async def test_bad_arguments_never_mean_something_wider(bridge: Start, nodes: list[NodeProcess], ann: Path) -> None:
    """A misspelt visibility must not make a public channel, a bad number no unlimited invite."""
    await configure_home(ann, "ann", nodes[0].url)
    async with bridge(ann) as one:
        assert "unknown visibility tier" in await one.refused("create_channel", name="ops", visibility="privat")
        assert await one.tool("list_channels") == "no channels visible"
        await one.tool("create_channel", name="ops")
        for uses in (-1, 0, 1.5, "3", 2**40):
            assert "`uses`" in await one.refused("invite_create", channel="ops", uses=uses)
        assert "unknown argument" in await one.refused("invite_create", channel="ops", expires_in=60)
        assert await one.tool("invite_list", channel="ops") == "no outstanding invites"
        assert await one.refused("send_channel", channel="ops") == "`channel` and `text` are required"
        assert await one.refused("set_perm", level="all") == "`level` must be mute, notify, converse, or act"
        assert "above `converse`" in await one.refused("set_perm", level="act"), "only the owner goes beyond"


async def test_the_owner_changes_a_level_of_a_running_bridge(
    bridge: Start, nodes: list[NodeProcess], ann: Path
) -> None:
    """`conclave perm set` reaches the sessions that run, so that an owner can stop one at once."""
    await configure_home(ann, "ann", nodes[0].url)
    async with bridge(ann) as one:
        await one.tool("create_channel", name="ops")
        await one.tool("join_channel", channel="ops")
        assert "send_channel" not in await one.tools()
        set_override(ann / CONFIG_NAME, Override(nodes[0].url, Level.ACT, "ops"))
        await wait_until(lambda: one.lists_changed == 2)
        assert await one.tool("send_channel", channel="ops", text="hello") == "sent to ops"
        set_override(ann / CONFIG_NAME, Override(nodes[0].url, Level.MUTE, "ops"))
        await wait_until(lambda: one.lists_changed == 3)
        assert "below `converse`" in await one.refused("send_channel", channel="ops", text="hello")


async def test_a_repeated_perm_set_overrides_the_session(nodes: list[NodeProcess], ann: Path) -> None:
    """A message made an agent raise a level; the owner, who wants it back, repeats the command."""
    await configure_home(ann, "ann", nodes[0].url)
    word = Override(nodes[0].url, Level.MUTE, "ops")
    async with RawBridge(ann) as one:
        await one.tool("create_channel", name="ops")
        await one.tool("join_channel", channel="ops", perm="converse")
        assert "send_channel" in await one.tools()
        set_override(ann / CONFIG_NAME, word)
        await wait_until(lambda: one.lists_changed == 3, what="it is muted")
        await one.tool("set_perm", channel="ops", level="converse")
        await wait_until(lambda: one.lists_changed == 4, what="the session may answer")
        set_override(ann / CONFIG_NAME, word)
        await wait_until(lambda: one.lists_changed == 5, what="it is muted again")
        assert "below `converse`" in await one.refused("send_channel", channel="ops", text="hello")


async def test_two_bridges_of_one_directory_get_two_names(
    nodes: list[NodeProcess], peers: Peers, ann: Path, tmp_path: Path
) -> None:
    """Two terminals in one project are usual; each must get a name of its own, and report it."""
    await configure_home(ann, "ann", nodes[0].url)
    place = tmp_path / "project"
    place.mkdir()
    watcher = await peers.register(nodes[1].url, "watcher")
    async with RawBridge(ann, directory=place) as one, RawBridge(ann, directory=place) as two:
        names = {"ann/laptop/project", "ann/laptop/project-2"}

        async def both() -> bool:
            return names <= set(await watcher.who())

        await wait_until(both, what="both are there")
        assert len(one.events_with("Another live session") + two.events_with("Another live session")) == 1


async def test_an_explicit_handle_is_not_fought_for(nodes: list[NodeProcess], peers: Peers, ann: Path) -> None:
    """The superseded one reports it once and stays away: two that supersede each other would never stop."""
    await configure_home(ann, "ann", nodes[0].url)
    watcher = await peers.register(nodes[1].url, "watcher")

    async def present() -> bool:
        return "ann/laptop/me" in await watcher.who()

    async with RawBridge(ann, "--as", "me") as one:
        await wait_until(present)
        async with RawBridge(ann, "--as", "me") as two:
            await one.wait_for_event("holds the handle `me`")
            assert "restart with a distinct `--as`" in await one.refused("who")
            assert "ann/laptop/me" in await two.tool("who")
            assert not two.events


async def test_the_node_under_a_bridge_dies(nodes: list[NodeProcess], peers: Peers, ann: Path) -> None:
    """It reconnects to another node, joins its channels again, and shows the messages in between."""
    poster = await peers.register(nodes[1].url, "poster")
    await configure_home(ann, "ann", nodes[0].url, nodes[2].url)
    async with RawBridge(ann, "--as", "me") as one:
        await one.wait_for_event("is the same server as")
        await poster.create("ops")
        await poster.join("ops")
        await one.tool("join_channel", channel="ops")
        await poster.post("ops", "before")
        await one.wait_for_event("before")
        asking = [asyncio.create_task(one.attempt("who")) for _ in range(20)]
        await nodes[0].kill()
        await poster.post("ops", "meanwhile")
        await one.wait_for_event("meanwhile")
        await poster.post("ops", "after")
        await one.wait_for_event("after")
        assert [len(one.events_with(text)) for text in ("before", "meanwhile", "after")] == [1, 1, 1]
        for text, failed in await asyncio.gather(*asking):
            assert not failed or "lost" in text or "not connected" in text


async def test_more_than_fits_is_announced_and_read_page_by_page(
    nodes: list[NodeProcess], peers: Peers, ann: Path
) -> None:
    """A session that was away for long gets the number of missed messages, and `catch_up` has all of them."""
    poster = await peers.register_creator(nodes[1].url, "poster", "ops")
    await configure_home(ann, "ann", nodes[0].url)
    async with RawBridge(ann, "--as", "me") as one:
        await one.tool("join_channel", channel="ops")
        await poster.post("ops", "first")
        await one.wait_for_event("first")
    for number in range(230):
        await poster.post("ops", f"number {number}.")
    async with RawBridge(ann, "--as", "me") as one:
        await one.tool("join_channel", channel="ops")
        notice = await one.wait_for_event("missed in #ops")
        assert "catch_up to read them" in notice["content"]
        await poster.post("ops", "live")
        await one.wait_for_event("live")
        read = ""
        while "no retained messages" not in (page := await one.tool("catch_up", channel="ops")):
            read += page
        assert [read.count(f": number {number}.") for number in range(230)] == [1] * 230
        assert len(one.events) == 2, "what was announced is not shown as well"


async def test_one_bridge_on_two_servers(nodes: list[NodeProcess], redis_url: str, peers: Peers, ann: Path) -> None:
    """A session has to name one of them, and events have the name of theirs."""
    other = NodeProcess("--redis-url", redis_url, "--key-prefix", "elsewhere")
    await other.start()
    try:
        await configure_home(ann, "ann", nodes[0].url)
        async with await connect(other.url, create_or_load(ann / KEY_NAME), "x", register=("ann", "desk")):
            register(ann / CONFIG_NAME, Registration(other.url, "ann", "desk"))
        async with RawBridge(ann, "--as", "me") as one:
            assert await one.refused("who") == "multiple servers connected; pass `server`"
            assert await one.refused("who", server="ws://nowhere") == "not connected to server `ws://nowhere`"
            assert "ann/laptop/me" in await one.tool("who", server=nodes[0].url)
            assert "ann/desk/me" in await one.tool("who", server=other.url)
            for url in (nodes[0].url, other.url):
                await one.tool("create_channel", server=url, name="ops")
                await one.tool("join_channel", server=url, channel="ops")
            poster = await peers.register(other.url, "poster")
            await poster.join("ops")
            await poster.post("ops", "from elsewhere")
            assert (await one.wait_for_event("from elsewhere"))["meta"]["server"] == other.url
    finally:
        await peers.close()
        await other.close()


async def test_a_server_that_cannot_be_reached_is_reported_once(ann: Path, nodes: list[NodeProcess]) -> None:
    """A session must know the reason, and a tool call must not hang."""
    node = nodes[0]
    await configure_home(ann, "ann", node.url)
    await node.kill()
    async with RawBridge(ann, "--as", "me") as one:
        assert "not connected to" in await one.refused("who")
        await one.wait_for_event("Cannot reach")
        await node.start()
        await one.wait_for_event("Connected to")
        assert "ann/laptop/me" in await one.tool("who")
        assert len(one.events) == 2


async def test_a_hostile_corpus_passes_every_path_to_the_model(
    bridge: Start, nodes: list[NodeProcess], peers: Peers, ann: Path
) -> None:
    """For any text each message stays one line, no tag is forged, and the bridge goes on."""
    poster = await peers.register_creator(nodes[1].url, "poster", "ops")
    await configure_home(ann, "ann", nodes[0].url)
    bodies = [body for body in BODIES if _can_be_sent(body)]
    async with bridge(ann, "--as", "me") as one:
        await one.tool("join_channel", channel="ops")
        for body in bodies:
            await poster.post("ops", body)
        await wait_until(lambda: len(one.events) == len(bodies), timeout=60)
        pages = ""
        since: dict[str, str] = {"since": "1h"}
        while "call catch_up again" in (page := await one.tool("catch_up", channel="ops", **since)):
            pages += page
            since = {"after": page.rsplit("`after` = `", 1)[1].split("`")[0]}
        for text in (*(event["content"] for event in one.events), pages, page):
            assert not opens_a_tag(text)
            assert "\x1b" not in text
        assert "ann/laptop/me" in await one.tool("who")


def _can_be_sent(body: str) -> bool:
    try:
        return len(body.encode()) <= 1024 * 1024
    except UnicodeEncodeError:
        return False


async def test_it_ends_with_its_input_though_the_server_hangs(nodes: list[NodeProcess], ann: Path) -> None:
    """Claude Code closes a session by closing the pipe; what is behind the bridge must not hold that up."""
    host, _, port = nodes[0].address.rpartition(":")
    await configure_home(ann, "ann", nodes[0].url)
    async with Proxy(host, int(port)) as proxy:
        register(ann / CONFIG_NAME, Registration(URL.format(proxy.port), "ann", "laptop"))
        async with RawBridge(ann, "--as", "me", "--server", URL.format(proxy.port)) as one:
            await one.tool("who")
            proxy.swallow()
            asking = asyncio.create_task(one.attempt("who"))
            await pause(0.2)  # the call is under way, which nothing outside of the bridge shows
            began = time.monotonic()
            assert await one.end() == 0
            assert time.monotonic() - began < 10, "far from the 15 s that a reply may take"
            assert (await asking)[1]
