"""The verbs that ask a server, as processes, against a scripted server."""

import json
import re
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from conclave.machine.config import Level, LocalConfig, Override, Registration, load
from conclave.machine.keys import MachineKey, create_or_load
from conclave.model import AuditEntry, ChannelInfo, InviteInfo, MachineInfo, Plain, SessionPath, Visibility
from conclave.protocol.v1 import encode
from conclave.protocol.v1.admin import (
    AclAdd,
    AclDemote,
    AclList,
    AclPromote,
    AclRemove,
    Audit,
    Ban,
    BanList,
    CreateChannel,
    DeleteChannel,
    InviteCreate,
    InviteListOp,
    InviteRevoke,
    Kick,
    MachineAdd,
    MachineRemove,
    RenameChannel,
    ServerInviteCreate,
    SetVisibility,
    Unban,
    UserRemove,
)
from conclave.protocol.v1.frames import (
    Ack,
    Admin,
    AuditList,
    ChannelList,
    ChannelMsg,
    Error,
    Frame,
    Internal,
    InviteList,
    InviteToken,
    Join,
    Joined,
    ListChannels,
    ListMachines,
    ListUsers,
    MachineList,
    NotFound,
    Presence,
    ServerInfo,
    Unauthorized,
    UserList,
    VersionMismatch,
    Whisper,
    Who,
)
from tests.support.command_line import Finished, conclave
from tests.support.scripted_server import Connection, ScriptedServer
from tests.support.waiting import wait_until

BOB = SessionPath("bob", "desktop", "y")
TOKEN = "-v" + "h" * 30
"""Tokens may begin with a dash, and look like options."""
EVIL = SessionPath("e\x1b[2Jvil", "m\u202e", "h\n")
EVIL_SHOWN = r"e\x1b[2Jvil/m\u202e/h\n"


@pytest.fixture
async def server() -> AsyncIterator[ScriptedServer]:
    async with ScriptedServer().running() as running:
        yield running


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A configuration directory with a key in it."""
    create_or_load(tmp_path / "key")
    return tmp_path


async def ask(
    server: ScriptedServer, directory: Path, replies: list[Frame], *arguments: str
) -> tuple[Finished, list[Frame]]:
    """Run a verb whose requests are answered with these frames; return its output and its requests."""

    async def answer(connection: Connection, _: Frame) -> None:
        # Somebody else is always talking: none of it is the reply.
        whisper = Whisper(BOB, connection.path, Plain("psst"))
        await connection.send(ServerInfo(admin=False), whisper, ChannelMsg("ops", BOB, Plain("hi")), replies.pop(0))

    server.answer = answer
    finished = await conclave(directory, *arguments, "--server", server.url)
    return finished, server.received


KEY = MachineKey(bytes(32))


@pytest.mark.parametrize(
    "case",
    [
        (
            ["machine", "add", "--name", "m", "--pubkey", KEY.public_text],
            Admin(MachineAdd("m", KEY.public_key)),
            Ack("m"),
            "✓ m",
        ),
        (["machine", "remove", "m"], Admin(MachineRemove("m")), Ack("m"), "✓ m"),
        (["machine", "list"], ListMachines(), MachineList((MachineInfo("m", "K", "T"),)), "m\tK\tT"),
        (["machine", "list"], ListMachines(), MachineList(()), None),
        (["channel", "create", "ops"], Admin(CreateChannel("ops", Visibility.PUBLIC)), Ack("ops"), "✓ ops"),
        (
            ["channel", "create", "ops", "--visibility", "private"],
            Admin(CreateChannel("ops", Visibility.PRIVATE)),
            Ack(),
            "✓ ops",
        ),
        (
            ["channel", "list"],
            ListChannels(),
            ChannelList(
                (
                    ChannelInfo("a", Visibility.PUBLIC, member=False),
                    ChannelInfo("b\tc", Visibility.PRIVATE, member=True),
                )
            ),
            "a\tpublic\nb\\tc\tprivate\t(member)",
        ),
        (["channel", "delete", "ops"], Admin(DeleteChannel("ops")), Ack("ops"), "✓ ops"),
        (["channel", "rename", "ops", "x y"], Admin(RenameChannel("ops", "x y")), Ack("x y"), "✓ x y"),
        (
            ["channel", "set-visibility", "ops", "unlisted"],
            Admin(SetVisibility("ops", Visibility.UNLISTED)),
            Ack("ops"),
            "✓ ops",
        ),
        (["acl", "add", "--channel", "ops", "bob"], Admin(AclAdd("ops", "bob")), Ack("bob"), "✓ bob"),
        (["acl", "remove", "--channel", "ops", "bob"], Admin(AclRemove("ops", "bob")), Ack("bob"), "✓ bob"),
        (["acl", "promote", "--channel", "ops", "bob"], Admin(AclPromote("ops", "bob")), Ack("bob"), "✓ bob"),
        (["acl", "demote", "--channel", "ops", "bob"], Admin(AclDemote("ops", "bob")), Ack("bob"), "✓ bob"),
        (["acl", "list", "--channel", "ops"], Admin(AclList("ops")), UserList((str(EVIL), "b")), f"{EVIL_SHOWN}\nb"),
        (["kick", "--channel", "ops", "b/m/s"], Admin(Kick("ops", "b/m/s")), Ack("b/m/s"), "✓ b/m/s"),
        (["ban", "--channel", "ops", "bob"], Admin(Ban("ops", "bob")), Ack("bob"), "✓ bob"),
        (["unban", "--channel", "ops", "bob"], Admin(Unban("ops", "bob")), Ack("bob"), "✓ bob"),
        (["bans", "--channel", "ops"], Admin(BanList("ops")), UserList((str(EVIL),)), EVIL_SHOWN),
        (["bans", "--channel", "ops"], Admin(BanList("ops")), UserList(()), None),
        (["invite", "revoke", TOKEN], Admin(InviteRevoke(TOKEN)), Ack(TOKEN), f"✓ {TOKEN}"),
        (["invite", "revoke", "short"], Admin(InviteRevoke("short")), Ack("short"), "✓ short"),
        (
            ["invite", "list", "--channel", "ops"],
            Admin(InviteListOp("ops")),
            InviteList((InviteInfo("t\n", 2, "T"), InviteInfo("u", None, None))),
            "t\\n\tuses: 2\texpires: T\nu\tuses: unlimited\texpires: never",
        ),
        (["user", "list"], ListUsers(), UserList((str(EVIL), "b")), f"{EVIL_SHOWN}\nb"),
        (["user", "remove", "bob"], Admin(UserRemove("bob")), Ack("bob"), "✓ bob"),
        (
            ["server-invite", "create", "--uses", "3", "--expires-in", "1d"],
            Admin(ServerInviteCreate(3, 86_400)),
            InviteToken("tok"),
            "invite token: tok",
        ),
        (["server-invite", "create"], Admin(ServerInviteCreate()), InviteToken("tok"), "invite token: tok"),
        (
            ["audit"],
            Admin(Audit(100)),
            AuditList((AuditEntry("T", "a/m/s", "ban", "ops\t\x1b[2J", "ok"), AuditEntry("U", "b", "c", "", "denied"))),
            "T\ta/m/s\tban\tops\\t\\x1b[2J\tok\nU\tb\tc\t\tdenied",
        ),
        (["audit", "--limit", "7"], Admin(Audit(7)), AuditList(()), None),
        (
            ["invite", "create", "--channel", "ops", "--uses", "2", "--expires-in", "2h"],
            Admin(InviteCreate("ops", 2, 7200)),
            InviteToken("tok"),
            "invite token: tok",
        ),
        (["invite", "create", "--channel", "ops"], Admin(InviteCreate("ops")), InviteToken("tok"), "invite token: tok"),
        (["join", "ops"], Join("ops"), Joined("ops"), "✓ joined ops"),
        (["join", "ops", "--token", "t"], Join("ops", "t"), Joined("ops"), "✓ joined ops"),
        (["who"], Who(), Presence(None, (BOB, EVIL)), "[server] bob/desktop/y, e\\x1b[2Jvil/m\\u202e/h\\n"),
        (["who", "ops"], Who("ops"), Presence("ops", ()), "[ops] "),
    ],
    ids=lambda case: "-".join(case[0][:2]),
)
async def test_a_verb_sends_its_request_and_prints_the_reply(
    server: ScriptedServer, directory: Path, case: tuple[list[str], Frame, Frame, str | None]
) -> None:
    """The output is the original's, and names from others cannot break its format."""
    arguments, asked, reply, out = case
    finished, received = await ask(server, directory, [reply], *arguments)
    assert (finished.code, finished.out) == (0, "" if out is None else f"{out}\n")
    assert received == [asked]
    assert re.fullmatch(r"cli-\d+", server.connections[0].path.session)


@pytest.mark.parametrize(
    ("arguments", "reply", "value"),
    [
        (
            ["machine", "list"],
            MachineList((MachineInfo("m", "K", "T"),)),
            [{"name": "m", "pubkey": "K", "added_at": "T"}],
        ),
        (
            ["channel", "list"],
            ChannelList((ChannelInfo("a", Visibility.UNLISTED, member=False),)),
            [{"name": "a", "visibility": "unlisted", "member": False}],
        ),
        (["invite", "create", "--channel", "ops"], InviteToken("tok"), {"token": "tok"}),
        (["who", "ops"], Presence("ops", (EVIL,)), {"channel": "ops", "sessions": [str(EVIL)]}),
        (["acl", "list", "--channel", "ops"], UserList((str(EVIL),)), [str(EVIL)]),
        (["bans", "--channel", "ops"], UserList(()), []),
        (["user", "list"], UserList((str(EVIL),)), [str(EVIL)]),
        (
            ["invite", "list", "--channel", "ops"],
            InviteList((InviteInfo("t", 2, None),)),
            [{"token": "t", "uses_remaining": 2, "expires_at": None}],
        ),
        (["server-invite", "create"], InviteToken("tok"), {"token": "tok"}),
        (
            ["audit"],
            AuditList((AuditEntry("T", str(EVIL), "ban", "ops bob", "ok"),)),
            {"at": "T", "actor": str(EVIL), "operation": "ban", "target": "ops bob", "outcome": "ok"},
        ),
    ],
)
async def test_json_has_the_same_data_and_is_safe_on_a_terminal(
    server: ScriptedServer, directory: Path, arguments: list[str], reply: Frame, value: object
) -> None:
    """A script gets the names unchanged; a terminal gets no control character."""
    finished, _ = await ask(server, directory, [reply], *arguments, "--json")
    assert finished.code == 0
    assert json.loads(finished.out) == value
    assert finished.out.rstrip("\n").isprintable()


@pytest.mark.parametrize(
    ("refusal", "line"),
    [
        (Unauthorized("not authorized: admin role required"), "❌ unauthorized: not authorized: admin role required"),
        (NotFound("channel `x`\nnot found"), r"❌ not found: channel `x`\nnot found"),
        (Internal("the store is away"), "❌ internal error: the store is away"),
    ],
)
async def test_a_refusal_is_shown_with_the_servers_text(
    server: ScriptedServer, directory: Path, refusal: Unauthorized | NotFound | Internal, line: str
) -> None:
    """It is on standard error, the exit code is 1, and standard output is empty."""
    finished, _ = await ask(server, directory, [Error(refusal)], "acl", "add", "--channel", "x", "bob")
    assert finished == Finished(1, "", f"{line}\n")


NEW_VERBS = {
    AclPromote: ["acl", "promote", "--channel", "ops", "bob"],
    AclDemote: ["acl", "demote", "--channel", "ops", "bob"],
    ServerInviteCreate: ["server-invite", "create"],
    Audit: ["audit", "--json"],
}


@pytest.mark.parametrize("operation", NEW_VERBS, ids=lambda operation: operation.__name__)
async def test_an_unknown_operation_is_reported_as_an_older_server(
    server: ScriptedServer, directory: Path, operation: type[msgspec.Struct]
) -> None:
    """The original cannot read the request, and closes with an empty close frame and no error."""

    async def close(connection: Connection, _: Frame) -> None:
        await connection.close_without_a_word()

    server.answer = close
    finished = await conclave(directory, *NEW_VERBS[operation], "--server", server.url)
    line = "❌ the server does not know this operation (it needs conclave 0.4 or later)\n"
    assert finished == Finished(1, "", line)
    assert [type(frame.op) for frame in server.received if isinstance(frame, Admin)] == [operation]


@pytest.mark.parametrize(("arguments", "orderly"), [(NEW_VERBS[AclPromote], False), (["user", "list"], True)])
async def test_other_closes_are_not_taken_for_an_older_server(
    server: ScriptedServer, directory: Path, arguments: list[str], orderly: bool
) -> None:
    """A node that dies sends no close frame at all, and every server knows the old operations."""

    async def end(connection: Connection, _: Frame) -> None:
        if orderly:
            await connection.close_without_a_word()
        else:
            connection.cut()

    server.answer = end
    finished = await conclave(directory, *arguments, "--server", server.url)
    assert finished == Finished(1, "", "❌ connection closed before a response arrived\n")


# --- join and send ---


async def test_join_sets_the_level_only_after_the_server_agreed(server: ScriptedServer, directory: Path) -> None:
    """A refused join changes nothing locally."""
    refused, _ = await ask(server, directory, [Error(NotFound("no"))], "join", "ops", "--perm", "act")
    assert refused.code == 1
    assert load(directory / "config.toml") == LocalConfig()
    finished, _ = await ask(server, directory, [Joined("ops")], "join", "ops", "--perm", "act")
    assert finished.code == 0
    assert len(finished.err.splitlines()) == 1
    assert load(directory / "config.toml").overrides == (Override(server.url, Level.ACT, "ops"),)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (
            ["join", "ops", "--perm", "loud"],
            "❌ unknown permission level `loud` (expected mute, notify, converse, or act)",
        ),
        (
            ["channel", "create", "ops", "--visibility", "Public"],
            "❌ unknown visibility tier `Public` (expected public, unlisted, or private)",
        ),
        (
            ["channel", "set-visibility", "ops", "hidden"],
            "❌ unknown visibility tier `hidden` (expected public, unlisted, or private)",
        ),
        (["server-invite", "create", "--expires-in", "0d"], "❌ invalid duration `0d`"),
        (
            ["machine", "add", "--name", "m", "--pubkey", "short"],
            "❌ invalid public key: malformed key or signature: ",
        ),
        (["invite", "create", "--channel", "ops", "--expires-in", "1w"], "❌ invalid duration `1w`"),
        (["invite", "create", "--channel", "ops", "--expires-in", "0"], "❌ invalid duration `0`"),
        (["tail", "--channel", "ops", "--since", "soon"], "❌ invalid duration `soon`"),
        (["tail", "--channel", "ops", "--as", "a/b"], "❌ invalid session handle: `a/b`"),
    ],
)
async def test_invalid_arguments_are_refused_before_connecting(
    server: ScriptedServer, directory: Path, arguments: list[str], line: str
) -> None:
    """The server gets no request."""
    finished = await conclave(directory, *arguments, "--server", server.url)
    assert (finished.code, finished.out) == (1, "")
    assert finished.err.startswith(line)
    assert server.connections == []


async def test_send_joins_posts_and_waits_for_the_acknowledgement(server: ScriptedServer, directory: Path) -> None:
    """Another user's message is not mistaken for the acknowledgement."""
    finished, received = await ask(server, directory, [Joined("ops"), Ack()], "send", "--channel", "ops", "two\nlines")
    assert finished == Finished(0, "✓ sent to ops\n", "")
    assert received == [Join("ops"), ChannelMsg("ops", server.connections[0].path, Plain("two\nlines"))]


@pytest.mark.parametrize(
    ("replies", "line"),
    [
        ([Error(NotFound("channel `ops` not found"))], "❌ join rejected: not found: channel `ops` not found"),
        ([Joined("ops"), Error(Unauthorized("no"))], "❌ send rejected: unauthorized: no"),
        ([Presence(None, ())], "❌ unexpected response: expected the answer to join, got presence"),
    ],
)
async def test_send_names_the_step_that_failed(
    server: ScriptedServer, directory: Path, replies: list[Frame], line: str
) -> None:
    """A refused join and a refused post are different problems."""
    finished, _ = await ask(server, directory, replies, "send", "--channel", "ops", "x")
    assert finished == Finished(1, "", f"{line}\n")


# --- Who I am ---


async def test_register_claims_the_name_and_records_it(server: ScriptedServer, tmp_path: Path) -> None:
    """The key is created if there is none."""
    finished = await conclave(tmp_path, "register", "--server", server.url, "--username", "zoe", "--machine", "phone")
    assert (finished.code, finished.err) == (0, "")
    assert re.fullmatch(r"✓ registered zoe/phone/cli-\d+\n", finished.out)
    assert load(tmp_path / "config.toml").servers == (Registration(server.url, "zoe", "phone"),)
    assert (tmp_path / "key").exists()


async def test_a_refused_registration_records_nothing(server: ScriptedServer, tmp_path: Path) -> None:
    """The username belongs to another user."""
    server.refuse = [Unauthorized("username `zoe` is already taken")]
    finished = await conclave(tmp_path, "register", "--server", server.url, "--username", "zoe", "--machine", "phone")
    assert finished == Finished(1, "", "❌ registration rejected: unauthorized: username `zoe` is already taken\n")
    assert load(tmp_path / "config.toml") == LocalConfig()


async def test_a_broken_configuration_stops_a_registration_before_it_happens(
    server: ScriptedServer, tmp_path: Path
) -> None:
    """Otherwise the username would be claimed, and the registration could not be recorded."""
    (tmp_path / "config.toml").write_text("oops")
    finished = await conclave(tmp_path, "register", "--server", server.url, "--username", "zoe")
    assert finished.code == 1
    assert "failed to parse config" in finished.err
    assert server.connections == []


async def test_server_add_records_the_owner_of_the_key(server: ScriptedServer, directory: Path) -> None:
    """A second machine needs no manual edit of the configuration."""
    finished = await conclave(directory, "server", "add", server.url)
    assert finished == Finished(0, f"✓ added `{server.url}` as ann/laptop\n", "")
    assert load(directory / "config.toml").servers == (Registration(server.url, "ann", "laptop"),)


async def test_another_protocol_version_is_named_in_the_error(server: ScriptedServer, directory: Path) -> None:
    """It must not look like an authentication failure."""
    server.instead_of_challenge = encode(Error(VersionMismatch(2, 1)))
    finished = await conclave(directory, "who", "--server", server.url)
    assert finished == Finished(1, "", "❌ incompatible protocol version: ours=2, theirs=1\n")


async def test_a_missing_key_error_names_the_command_that_creates_one(server: ScriptedServer, tmp_path: Path) -> None:
    """A new key is not created silently: the server would not know it."""
    finished = await conclave(tmp_path, "who", "--server", server.url)
    key = tmp_path / "key"
    assert finished == Finished(
        1, "", f"❌ failed to read keyfile `{key}` (run `conclave key` first): No such file or directory\n"
    )
    assert not key.exists()


# --- status ---


async def test_status_asks_all_servers_concurrently_and_counts_the_other_sessions(
    server: ScriptedServer, directory: Path
) -> None:
    """The order is that of the file; the command's own session is not counted."""
    async with ScriptedServer().running() as other:

        async def answer(connection: Connection, _: Frame) -> None:
            await connection.send(Presence(None, (connection.path, BOB)))

        async def refuse(connection: Connection, _: Frame) -> None:
            await connection.send(Error(Internal("no")))

        server.answer, other.answer = answer, refuse
        (directory / "config.toml").write_text(
            f'[[servers]]\nurl = "{other.url}"\nusername = "u"\nmachine = "m"\n'
            f'[[servers]]\nurl = "{server.url}"\nusername = "ann"\nmachine = "laptop"\n'
            '[[servers]]\nurl = "http://x"\nusername = "u"\nmachine = "m"\n'
            f'[[overrides]]\nserver = "{server.url}"\nlevel = "act"\n'
            f'[[overrides]]\nserver = "{server.url}"\nlevel = "mute"\nchannel = "ops"\n'
        )
        finished = await conclave(directory, "status")
        as_json = await conclave(directory, "status", "--json")
    assert finished.out.splitlines() == [
        f"{other.url}\tu/m\tunreachable: internal error: no",
        f"{server.url}\tann/laptop\treachable (1 session(s) online)",
        "http://x\tu/m\tunreachable: invalid server URL `http://x` (expected `ws://host` or `wss://host`)",
        "",
        "default: notify",
        f"{server.url} <whisper> -> act",
        f"{server.url} ops -> mute",
        "ceiling: converse",
    ]
    assert (finished.code, finished.err) == (1, "❌ 2 server(s) unreachable\n")
    value = json.loads(as_json.out)
    assert [(row["reachable"], row["sessions"]) for row in value["servers"]] == [
        (False, None),
        (True, 1),
        (False, None),
    ]
    assert value["overrides"][1] == {"server": server.url, "level": "mute", "channel": "ops"}
    assert as_json.code == 1


async def test_two_urls_of_one_server_do_not_supersede_each_other(server: ScriptedServer, directory: Path) -> None:
    """A path belongs to its latest session. So each session has a path of its own, and none counts another."""
    paths: list[SessionPath] = []

    async def answer(connection: Connection, _: Frame) -> None:
        paths.append(connection.path)
        await wait_until(lambda: len(paths) == 2, what="both are there")
        await connection.send(Presence(None, (*paths, BOB)))

    server.answer = answer
    (directory / "config.toml").write_text(
        f'[[servers]]\nurl = "{server.url}"\nusername = "ann"\nmachine = "laptop"\n'
        f'[[servers]]\nurl = "{server.url}/?again"\nusername = "ann"\nmachine = "laptop"\n'
    )
    finished = await conclave(directory, "status")
    assert finished.out.count("\treachable (1 session(s) online)") == 2, finished
    assert len({path.session for path in paths}) == 2
