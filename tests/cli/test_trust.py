"""The clusters that the verbs sign for: the pinned one only, until the user trusts another."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from conclave.machine.config import Registration, load
from conclave.machine.config_edit import register
from conclave.machine.keys import create_or_load
from conclave.protocol.v1.frames import ChannelMsg, Frame, Joined
from tests.support.command_line import Finished, conclave
from tests.support.nodes import running_node
from tests.support.scripted_server import Connection, ScriptedServer
from tests.support.v2_scripted_server import CHALLENGE, CLUSTER, Json, V2Connection, V2ScriptedServer

OTHER = "cluster-2"


async def answer(connection: V2Connection, request: Json) -> None:
    await connection.send({"re": request["id"], "sessions": [], "channel": "ops"})


@pytest.fixture
async def server() -> AsyncIterator[V2ScriptedServer]:
    async with V2ScriptedServer().running() as running:
        running.answer = answer
        yield running


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A configuration directory with a key in it."""
    create_or_load(tmp_path / "key")
    return tmp_path


def becomes(server: V2ScriptedServer, cluster: str) -> None:
    """Give the server another cluster id."""
    server.challenge = {**CHALLENGE, "cluster": cluster}
    server.headers["x-conclave-server-id"] = cluster


def pinned(directory: Path) -> str | None:
    (registration,) = load(directory / "config.toml").servers
    return registration.cluster


async def who(directory: Path, url: str) -> Finished:
    return await conclave(directory, "who", "--server", url)


@pytest.mark.parametrize(
    "verb", [("register", "--username", "ann", "--machine", "laptop", "--server"), ("server", "add")]
)
async def test_a_registration_pins_its_cluster(
    server: V2ScriptedServer, directory: Path, verb: tuple[str, ...]
) -> None:
    """At the registration the user has chosen the server deliberately."""
    assert (await conclave(directory, *verb, server.url)).code == 0
    assert load(directory / "config.toml").servers == (Registration(server.url, "ann", "laptop", CLUSTER),)
    listed = await conclave(directory, "server", "list")
    assert listed == Finished(0, f"{server.url}\tann/laptop\tcluster {CLUSTER}\n", "")
    (entry,) = json.loads((await conclave(directory, "server", "list", "--json")).out)
    assert entry["cluster"] == CLUSTER
    assert await who(directory, server.url) == Finished(0, "[server] \n", "")


async def test_another_cluster_gets_no_login_until_it_is_trusted(server: V2ScriptedServer, directory: Path) -> None:
    """Every verb refuses; `server trust` shows the new id and accepts it for good."""
    register(directory / "config.toml", Registration(server.url, "ann", "laptop", CLUSTER))
    becomes(server, OTHER)
    for verb in (["who"], ["send", "--channel", "ops", "x"], ["tail", "--channel", "ops"]):
        finished = await conclave(directory, *verb, "--server", server.url)
        assert (finished.code, finished.out) == (1, "")
        assert f"says it is cluster `{OTHER}`, but `{CLUSTER}` is expected there" in finished.err
        assert f"`conclave server trust {server.url}`" in finished.err
    for verb in (["server", "add"], ["register", "--username", "ann", "--server"]):
        assert (await conclave(directory, *verb, server.url)).code == 1
    assert "is expected there" in (await conclave(directory, "status")).out
    assert server.proofs == [], "nothing was signed"

    trusted = await conclave(directory, "server", "trust", server.url)
    lines = f"before: cluster {CLUSTER}\nnow: cluster {OTHER}\n✓ `{server.url}` is trusted as that from now on\n"
    assert trusted == Finished(0, lines, "")
    assert server.proofs == [], "to look is no login"
    assert pinned(directory) == OTHER
    assert (await who(directory, server.url)).code == 0


async def test_a_registration_without_a_pin_gets_one_at_the_next_login(
    server: V2ScriptedServer, directory: Path
) -> None:
    """This happens once, with a notice."""
    register(directory / "config.toml", Registration(server.url, "ann", "laptop"))
    note = f"`{server.url}` is remembered as cluster `{CLUSTER}` from now on\n"
    assert await who(directory, server.url) == Finished(0, "[server] \n", note)
    assert pinned(directory) == CLUSTER
    assert (await who(directory, server.url)).err == ""


async def test_a_server_without_a_registration_is_not_pinned(server: V2ScriptedServer, directory: Path) -> None:
    """The verbs work without a registration, and record none."""
    assert await who(directory, server.url) == Finished(0, "[server] \n", "")
    assert load(directory / "config.toml").servers == ()
    refused = await conclave(directory, "server", "trust", server.url)
    assert refused == Finished(1, "", f"❌ no registration for `{server.url}` (see `conclave server list`)\n")


async def test_an_original_server_is_never_pinned_and_a_pinned_one_never_downgraded(directory: Path) -> None:
    """It has an id, too, but its login is not signed for a server."""
    async with ScriptedServer().running() as older:
        older.headers["x-conclave-server-id"] = CLUSTER
        assert (await conclave(directory, "server", "add", older.url)).code == 0
        assert pinned(directory) is None
        assert (await conclave(directory, "send", "--server", older.url, "--channel", "ops", "x")).code == 1
        assert pinned(directory) is None

        register(directory / "config.toml", Registration(older.url, "ann", "laptop", CLUSTER))
        logins = len(older.connections)
        refused = await who(directory, older.url)
        assert refused.code == 1
        assert f"speaks protocol v1 only, but cluster `{CLUSTER}` is expected there" in refused.err
        assert len(older.connections) == logins

        trusted = await conclave(directory, "server", "trust", older.url)
        assert trusted.out.startswith(f"before: cluster {CLUSTER}\nnow: no cluster id\n✓")
        assert "could be passed on" in trusted.err
        assert pinned(directory) is None
        await conclave(directory, "server", "add", older.url)
        assert len(older.connections) == logins + 1


async def test_a_real_cluster_is_pinned_by_the_id_in_its_log(redis_url: str, directory: Path) -> None:
    """An operator can compare the pinned id with the one in the node's log."""
    async with running_node(redis_url) as url:
        assert (await conclave(directory, "register", "--server", url, "--username", "ann", "--machine", "m")).code == 0
        cluster = pinned(directory)
        trusted = await conclave(directory, "server", "trust", url)
        expected = f"before: cluster {cluster}\nnow: cluster {cluster}\n✓ `{url}` is trusted as before\n"
        assert trusted == Finished(0, expected, "")


# --- Sending once, whatever happens on the way ---


class Cutting:
    """Cuts the connection after a send, a given number of times."""

    def __init__(self, times: int, *, closing: Json | None = None) -> None:
        self.left = times
        self.closing = closing
        self.sent: list[Json] = []

    async def answer(self, connection: V2Connection, request: Json) -> None:
        if request["op"] == "send":
            self.sent.append(request)
            if self.left > 0:
                self.left -= 1
                if self.closing is None:
                    connection.cut()
                else:
                    await connection.close(self.closing["code"], "", self.closing)
                return
        await connection.send({"re": request["id"], "channel": "ops", "id": "1-0", "ts": 1})


async def send(directory: Path, url: str) -> Finished:
    return await conclave(directory, "send", "--server", url, "--channel", "ops", "hello")


async def test_a_message_whose_reply_is_lost_is_sent_again_with_its_key(
    server: V2ScriptedServer, directory: Path
) -> None:
    """The server recognises the idempotency key; its user notices nothing."""
    cutting = Cutting(1)
    server.answer = cutting.answer
    assert await send(directory, server.url) == Finished(0, "✓ sent to ops\n", "")
    assert len(cutting.sent) == 2
    (key,) = {request["key"] for request in cutting.sent}
    assert 1 <= len(key) <= 64
    await send(directory, server.url)
    assert cutting.sent[-1]["key"] != key, "the next message is another one"


class Refusing:
    """Answers requests of each kind with the refusals that remain for it."""

    def __init__(self, **left: list[Json]) -> None:
        self.left = left
        self.sent: list[Json] = []

    async def answer(self, connection: V2Connection, request: Json) -> None:
        if request["op"] == "send":
            self.sent.append(request)
        if self.left.get(request["op"]):
            await connection.send({"re": request["id"], "error": self.left[request["op"]].pop(0)})
        else:
            await connection.send({"re": request["id"], "channel": "ops", "id": "1-0", "ts": 1})


AWAY = {"code": "unavailable", "message": "the store is away", "retry_after": 0.1}
FAILED = {"code": "internal", "message": "it has failed"}
NO = {"code": "unauthorized", "message": "no"}


@pytest.mark.parametrize("refusals", [[AWAY], [FAILED], [AWAY, FAILED, AWAY]])
async def test_a_message_in_doubt_at_the_server_is_sent_again_with_its_key(
    server: V2ScriptedServer, directory: Path, refusals: list[Json]
) -> None:
    """It may be posted already: a rejection would be wrong, and another key would post it twice."""
    refusing = Refusing(send=[*refusals])
    server.answer = refusing.answer
    assert await send(directory, server.url) == Finished(0, "✓ sent to ops\n", "")
    assert len(refusing.sent) == len(refusals) + 1
    assert len({request["key"] for request in refusing.sent}) == 1


async def test_a_passing_refusal_of_the_join_does_not_end_the_attempts(
    server: V2ScriptedServer, directory: Path
) -> None:
    """An outage of the store affects every request; after it, one attempt gets the outcome."""
    refusing = Refusing(send=[AWAY])

    async def answer(connection: V2Connection, request: Json) -> None:
        await refusing.answer(connection, request)
        if request["op"] == "send" and len(refusing.sent) == 1:
            refusing.left["join"] = [AWAY, FAILED]

    server.answer = answer
    assert await send(directory, server.url) == Finished(0, "✓ sent to ops\n", "")
    assert (len(refusing.sent), refusing.left["join"]) == (2, [])


@pytest.mark.parametrize(
    ("refusals", "words"),
    [
        ([NO], "send rejected: unauthorized: no\n"),
        ([AWAY, NO], "unavailable: the store is away; the message may have been delivered\n"),
        ([AWAY | {"retry_after": 3600}], "unavailable: the store is away; the message may have been delivered\n"),
    ],
)
async def test_a_refusal_is_a_rejection_only_if_nothing_was_posted(
    server: V2ScriptedServer, directory: Path, refusals: list[Json], words: str
) -> None:
    """The user decides by it to send the message again or not."""
    refusing = Refusing(send=[*refusals])
    server.answer = refusing.answer
    finished = await send(directory, server.url)
    assert (finished.code, finished.out) == (1, "")
    assert finished.err.endswith(words)
    assert len(refusing.sent) == len(refusals)


@pytest.mark.parametrize(
    ("cutting", "sends"),
    [(Cutting(9), 2), (Cutting(9, closing={"code": 4001, "reason": "superseded"}), 1)],
)
async def test_it_is_sent_again_once_and_never_after_a_final_refusal(
    server: V2ScriptedServer, directory: Path, cutting: Cutting, sends: int
) -> None:
    """Otherwise the outcome stays unknown, and the user is told so."""
    server.answer = cutting.answer
    finished = await send(directory, server.url)
    assert (finished.code, finished.out) == (1, "")
    assert finished.err.endswith("; the message may have been delivered\n")
    assert len(cutting.sent) == sends


async def test_a_v1_server_is_never_sent_a_message_twice(directory: Path) -> None:
    """It would post the message twice."""

    async def cut(connection: Connection, frame: Frame) -> None:
        if isinstance(frame, ChannelMsg):
            connection.cut()
        else:
            await connection.send(Joined("ops"))

    async with ScriptedServer().running() as older:
        older.answer = cut
        finished = await send(directory, older.url)
        assert finished.code == 1
        assert finished.err.endswith("; the message may have been delivered\n")
        assert len(older.connections) == 1
