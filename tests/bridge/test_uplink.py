"""A bridge as a process, at scripted servers: repeated sends, trust, and reconnects."""

from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from conclave.machine.config import Level, Registration, load
from conclave.machine.config_edit import pin, register, set_default
from conclave.machine.keys import create_or_load
from conclave.machine.locations import CONFIG_NAME, KEY_NAME
from conclave.protocol.v1.frames import ChannelMsg, Frame, Join, Joined
from conclave.protocol.v1.frames import Whisper as WhisperFrame
from tests.support.bridge_process import RawBridge
from tests.support.scripted_server import Connection, ScriptedServer
from tests.support.v2_scripted_server import CHALLENGE, CLUSTER, Json, V2Connection, V2ScriptedServer
from tests.support.waiting import wait_until

SAID = ("send", "whisper")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A configuration directory of ann, whose sessions may post."""
    create_or_load(tmp_path / KEY_NAME)
    set_default(tmp_path / CONFIG_NAME, Level.CONVERSE)
    return tmp_path


def configure(home: Path, url: str, cluster: str | None = None) -> Path:
    path = home / CONFIG_NAME
    register(path, Registration(url, "ann", "laptop", cluster))
    return path


class Channel:
    """A server with one channel that cuts the connection at a send, a given number of times."""

    def __init__(self, cuts: int) -> None:
        self.cuts = cuts
        self.said: list[Json] = []
        self.joins = 0
        self.refusal: Json | None = None

    async def answer(self, connection: V2Connection, request: Json) -> None:
        reply: Json = {"re": request["id"]}
        if request["op"] == "join":
            self.joins += 1
            reply |= {"channel": "ops", "position": "5-0", "admin": False}
        elif request["op"] == "history":
            reply |= {"messages": [], "more": False}
        elif request["op"] in SAID:
            self.said.append(request)
            if self.cuts > 0:
                self.cuts -= 1
                connection.cut()
                return
            reply |= {"error": self.refusal} if self.refusal else {"id": "6-0", "ts": 6}
        await connection.send(reply)


@pytest.mark.parametrize(
    ("tool", "arguments", "result"),
    [
        ("send_channel", {"channel": "ops", "text": "hello"}, "sent to ops"),
        ("whisper", {"target": "bob/desk/y", "text": "hello"}, "whisper sent"),
    ],
)
async def test_a_send_while_the_connection_breaks_is_posted_once(
    home: Path, tool: str, arguments: dict[str, str], result: str
) -> None:
    """Sent again under its key when the session is in its channels again; the agent has nothing to wonder about."""
    channel = Channel(cuts=1)
    async with V2ScriptedServer().running() as server:
        server.answer = channel.answer
        configure(home, server.url)
        async with RawBridge(home, "--as", "me") as one:
            await one.tool("join_channel", channel="ops")
            assert await one.tool(tool, **arguments) == result
            assert len(channel.said) == 2
            assert channel.said[0]["key"] == channel.said[1]["key"]
            assert (channel.joins, len(server.connections)) == (2, 2)
            await one.tool(tool, **arguments)
            assert channel.said[2]["key"] != channel.said[0]["key"]


@pytest.mark.parametrize(
    ("cuts", "refusal", "words"),
    [(9, None, "lost"), (1, {"code": "unauthorized", "message": "not a member"}, "refused: not a member")],
)
async def test_a_second_failure_is_reported(home: Path, cuts: int, refusal: Json | None, words: str) -> None:
    """The first attempt may have been delivered: what to do, the agent has to find out."""
    channel = Channel(cuts)
    channel.refusal = refusal
    async with V2ScriptedServer().running() as server:
        server.answer = channel.answer
        configure(home, server.url)
        async with RawBridge(home, "--as", "me") as one:
            await one.tool("join_channel", channel="ops")
            text = await one.refused("send_channel", channel="ops", text="hello")
            assert words in text
            assert "it may have happened: look before you retry" in text
            assert len(channel.said) == 2


AWAY = {"code": "unavailable", "message": "the store is away", "retry_after": 0.1}
FAILED = {"code": "internal", "message": "it has failed"}
NO = {"code": "unauthorized", "message": "no"}


@pytest.mark.parametrize(
    ("refusals", "words"),
    [
        ([AWAY, FAILED, AWAY], None),
        ([AWAY, NO], "the store is away; asked again, the server refused: no; it may have happened"),
        ([AWAY | {"retry_after": 60}], "the store is away; it may have happened"),
    ],
)
async def test_a_send_that_the_server_could_not_confirm_is_repeated(
    home: Path, refusals: list[Json], words: str | None
) -> None:
    """It may be in the channel already: with its key it is posted once, without one the agent has to check."""
    channel, left, said = Channel(cuts=0), [*refusals], []

    async def answer(connection: V2Connection, request: Json) -> None:
        if request["op"] != "send":
            await channel.answer(connection, request)
            return
        said.append(request["key"])
        reply = {"error": left.pop(0)} if left else {"id": "6-0", "ts": 6}
        await connection.send({"re": request["id"], **reply})

    async with V2ScriptedServer().running() as server:
        server.answer = answer
        configure(home, server.url)
        async with RawBridge(home, "--as", "me") as one:
            await one.tool("join_channel", channel="ops")
            if words is None:
                assert await one.tool("send_channel", channel="ops", text="hello") == "sent to ops"
            else:
                assert words in await one.refused("send_channel", channel="ops", text="hello")
            assert len(said) == len(refusals) + (words is None)
            assert len(set(said)) == 1


async def test_nothing_is_sent_twice_to_a_v1_server(home: Path) -> None:
    """It would be posted twice."""
    said: list[Frame] = []

    async def answer(connection: Connection, frame: Frame) -> None:
        if isinstance(frame, ChannelMsg | WhisperFrame):
            said.append(frame)
            connection.cut()
        elif isinstance(frame, Join):
            await connection.send(Joined(frame.channel))

    async with ScriptedServer().running() as older:
        older.answer = answer
        configure(home, older.url)
        async with RawBridge(home, "--as", "me") as one:
            text = await one.refused("whisper", target="bob/desk/y", text="hello")
            assert "it may have happened: look before you retry" in text
            await wait_until(lambda: len(older.connections) == 2)
            assert len(said) == 1


async def test_another_cluster_gets_no_login_until_the_owner_trusts_it(home: Path) -> None:
    """The session is told the reason; a running bridge notices the owner's configuration."""
    async with V2ScriptedServer().running() as server:
        server.challenge = {**CHALLENGE, "cluster": "cluster-2"}
        server.headers["x-conclave-server-id"] = "cluster-2"
        path = configure(home, server.url, CLUSTER)
        async with RawBridge(home, "--as", "me") as one:
            notice = await one.wait_for_event("Not connected to")
            assert f"says it is cluster `cluster-2`, but `{CLUSTER}` is expected" in notice["content"]
            assert "conclave server trust" in notice["content"]
            assert server.proofs == []
            assert pin(path, server.url, "cluster-2", over=CLUSTER)
            await one.wait_for_event("Connected to")
            assert len(one.events_with("Not connected to")) == 1


async def test_every_url_of_a_pinned_cluster_has_to_prove_it(home: Path) -> None:
    """A cluster's id is public: a stranger that shows it claims to be a further URL of it, and must not get a login."""
    async with ScriptedServer().running() as stranger, AsyncExitStack() as stack:
        server = await stack.enter_async_context(V2ScriptedServer().running())
        stranger.headers["x-conclave-server-id"] = CLUSTER
        configure(home, server.url, CLUSTER)
        configure(home, stranger.url)
        async with RawBridge(home, "--as", "me") as one:
            await one.wait_for_event("is the same server as")
            await wait_until(lambda: server.connections)
            await stack.aclose()
            await one.wait_for_event("speaks protocol v1 only")
            assert stranger.connections == []


async def test_the_first_login_pins_and_an_original_server_is_not_pinned(home: Path) -> None:
    """As with the verbs: a bridge may be the first one to see it."""
    async with V2ScriptedServer().running() as server, ScriptedServer().running() as older:
        older.headers["x-conclave-server-id"] = "old"
        configure(home, older.url)
        path = configure(home, server.url)
        async with RawBridge(home, "--as", "me"):
            await wait_until(lambda: load(path).servers[1].cluster == CLUSTER and older.connections)
        assert load(path).servers[0].cluster is None


async def test_a_server_with_retry_after_is_not_dialled_before(home: Path) -> None:
    """An overloaded node must not be dialled five times a second by every client."""
    async with V2ScriptedServer().running() as server:
        configure(home, server.url)
        later = {"ev": "closing", "code": 1013, "reason": "too much", "retry_after": 20, "error": "unavailable"}
        server.challenge = later
        async with RawBridge(home, "--as", "me") as one:
            await one.wait_for_event("too much — still trying")
            assert len(server.hellos) == 1
