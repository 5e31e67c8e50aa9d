"""`conclave doctor` in use: real programs, a real process tree, real nodes."""

import asyncio
import json
import os
import re
import sys
import time
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
from nacl.signing import SigningKey

import cli
from cli.diagnosis.facts import Facts, Place, gather
from cli.diagnosis.finding import Finding, Verdict
from cli.diagnosis.table import CHECKS, examine
from conclave.client.link import connect
from conclave.machine.config import Registration
from conclave.machine.config_edit import pin, register
from conclave.machine.keys import create_or_load
from conclave.model import SessionPath
from conclave.protocol.v1.frames import Frame, Ping, Pong, Presence, Unauthorized
from relay.services.server_admins import ServerAdmins
from tests.support.command_line import Finished
from tests.support.nodes import running_node
from tests.support.peer import Peer
from tests.support.programs import CONCLAVE
from tests.support.scripted_server import Connection, ScriptedServer

BRIDGE = {"command": "conclave", "args": ["bridge"]}
CHANNELS = ("--dangerously-load-development-channels", "server:conclave")
GONE = "ws://127.0.0.1:9"
"""An address without a listener."""


class Machine:
    """A user's machine: a home, a project in it, programs on PATH, and a configuration directory."""

    def __init__(self, root: Path) -> None:
        self.home, self.programs, self.directory = root / "home", root / "bin", root / "home" / "project"
        for folder in (self.programs, self.directory):
            folder.mkdir(parents=True)
        self.config, self.key = self.home / "conclave" / "config.toml", self.home / "conclave" / "key"
        (self.programs / "conclave").symlink_to(CONCLAVE)
        self.program("claude", 'test "$1" = --version && read -r nothing || echo "2.1.283 (Claude Code)"')
        self.servers(conclave=BRIDGE)

    def program(self, name: str, script: str) -> None:
        path = self.programs / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def servers(self, **entries: object) -> None:
        """Write Claude Code's own file."""
        value = {"projects": {str(self.directory): {"mcpServers": entries}}}
        (self.home / ".claude.json").write_text(json.dumps(value))

    async def register(self, url: str, user: str = "ann") -> None:
        async with await connect(url, create_or_load(self.key), "setup", register=(user, "laptop")):
            register(self.config, Registration(url, user, "laptop"))

    def record(self, *urls: str) -> None:
        """Write registrations that no server knows."""
        create_or_load(self.key)
        for url in urls:
            register(self.config, Registration(url, "ann", "laptop"))

    def signer(self) -> SigningKey:
        return create_or_load(self.key)._signer

    @property
    def environment(self) -> dict[str, str]:
        """The environment of the programs."""
        return {
            "HOME": str(self.home),
            "PATH": f"{self.programs}:/usr/bin:/bin",
            "PYTHONPATH": str(Path(cli.__file__).parents[1]),
            "PYTHONUTF8": "1",
        }

    async def look(self) -> dict[str, list[Finding]]:
        """Run the checks outside of any session."""
        return by_check(await self.facts())

    async def facts(self) -> Facts:
        return await gather(
            Place(
                directory=self.directory,
                environment=self.environment,
                pid=0,
                key_path=self.key,
                config_path=self.config,
                claude_file=self.home / ".claude.json",
                policy_file=self.home / "managed-settings.json",
            )
        )

    async def doctor(self, *options: str, started_with: tuple[str, ...] = CHANNELS) -> Finished:
        """Run the command in a session: below a process that is called `claude` and has these arguments.

        Its standard input is open, and nothing ever comes.
        """
        reader, writer = os.pipe()
        line = f"{sys.executable} -m cli.main --config-dir {self.config.parent} doctor {' '.join(options)}; exit $?"
        process = await asyncio.create_subprocess_exec(
            *("claude", "-c", line, "claude", *started_with),
            executable="/bin/sh",
            cwd=self.directory,
            env=self.environment,
            stdin=reader,
            stdout=PIPE,
            stderr=PIPE,
        )
        os.close(reader)
        try:
            async with asyncio.timeout(60):
                out, err = await process.communicate()
        finally:
            os.close(writer)
            if process.returncode is None:
                process.kill()
        return Finished(process.returncode or 0, out.decode(), err.decode())


def by_check(facts: Facts) -> dict[str, list[Finding]]:
    found: dict[str, list[Finding]] = {name: [] for name in CHECKS}
    for name, finding in examine(facts):
        found[name].append(finding)
    return found


def verdicts(findings: list[Finding]) -> list[str]:
    return [finding.verdict.value for finding in findings]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.fixture
async def node(redis_url: str) -> AsyncIterator[str]:
    async with running_node(redis_url, admins=ServerAdmins({"root": None})) as url:
        yield url


def table(finished: Finished) -> dict[str, Any]:
    return {row["check"]: row for row in json.loads(finished.out)}


# --- The command ---


async def test_a_complete_machine_has_no_findings_to_act_on(machine: Machine, node: str) -> None:
    """False alarms on a healthy machine train users to ignore the others."""
    await machine.register(node)
    finished = await machine.doctor("--json")
    rows = json.loads(finished.out)
    bad = [row for row in rows if row["verdict"] != "ok" or row["remedy"] is not None]
    assert (finished.code, finished.err, bad) == (0, "", [])
    quiet = {"clock", "duplicate"}
    assert [row["check"] for row in rows] == [name for name in CHECKS if name not in quiet]
    assert "ann/laptop, round trip" in table(finished)["server"]["text"]
    assert "`project`" in table(finished)["handle"]["text"]
    assert "2.1.283" in table(finished)["claude"]["text"]


async def test_each_problem_is_a_line_followed_by_its_remedy(machine: Machine) -> None:
    """On an empty machine the remedies lead to the first message."""
    (machine.programs / "conclave").unlink()
    machine.servers()
    finished = await machine.doctor(started_with=("--continue",))
    assert (finished.code, finished.err) == (1, "")
    lines = finished.out.splitlines()
    for complaint, remedy in [
        ("✗ no MCP server entry", "claude mcp add --scope local conclave -- conclave bridge"),
        ("✗ this Claude Code (process ", "claude --dangerously-load-development-channels server:conclave"),
        ("✗ this machine has no key", "conclave register"),
        ("✗ this machine is registered nowhere", "conclave register"),
        ("✗ `conclave` is not on PATH", "add "),
    ]:
        (at,) = (number for number, line in enumerate(lines) if line.startswith(complaint))
        assert lines[at + 1].startswith("  → "), lines[at]
        assert remedy in lines[at + 1]
    assert all(line.startswith(("✓ ", "! ", "✗ ", "? ", "  → ")) for line in lines)
    assert not machine.config.parent.exists(), "it changes nothing"


async def test_a_warning_is_no_failure(machine: Machine, node: str) -> None:
    """A script that runs the command before a session must not stop because of a warning."""
    await machine.register(node)
    machine.key.chmod(0o644)
    finished = await machine.doctor()
    assert finished.code == 0
    assert [line for line in finished.out.splitlines() if not line.startswith("✓ ")] == [
        f"! others on this machine may be able to use its key: {machine.key} has mode 0644",
        f"  → `chmod 600 {machine.key}`",
    ]


async def test_names_from_others_cannot_control_the_terminal(machine: Machine) -> None:
    """Names from servers and from other programs' files are untrusted text."""
    evil = SessionPath("e\x1b[2Jvil", "m\u202e", "x")
    async with ScriptedServer().running() as server:
        server.owner, server.answer = (evil.user, evil.machine), online(evil)
        machine.record(server.url)
        machine.servers(**{"a\x1b[31m\nb": BRIDGE})
        finished, as_json = await machine.doctor(), await machine.doctor("--json")
    assert all(line.isprintable() for line in finished.out.split("\n"))
    assert r"knows this machine as e\x1b[2Jvil/m\u202e;" in finished.out
    assert r"a\x1b[31m\nb" in finished.out
    assert as_json.out.rstrip("\n").isprintable()
    assert "e\x1b[2Jvil/m\u202e" in table(as_json)["server"]["text"]


async def test_slow_programs_and_servers_end_at_their_deadlines(machine: Machine) -> None:
    """A program that hangs and a server that does not answer run into their deadlines concurrently."""
    machine.program("claude", "sleep 600")
    async with ScriptedServer().running() as server:
        server.silent = True
        machine.record(server.url)
        rows = table(await machine.doctor("--json"))
    assert rows["claude"]["verdict"] == "unknown"
    assert "did not answer within 10s" in rows["claude"]["text"]
    assert rows["server"]["verdict"] == "problem"
    assert "no answer within 12s" in rows["server"]["text"]


# --- How the session was started ---


@pytest.mark.parametrize(
    ("arguments", "verdict", "words"),
    [
        (CHANNELS, "ok", "can push messages into it"),
        (("--dangerously-load-development-channels=server:conclave", "--model", "x"), "ok", "can push"),
        (("--dangerously-load-development-channels", "plugin:a@b", "server:conclave"), "ok", "can push"),
        (("--channels", "plugin:conclave@ours"), "ok", "`plugin:conclave@ours`"),
        (("--continue",), "problem", "without channels"),
        (("--continue", "server:conclave"), "problem", "without channels"),
        (("--dangerously-load-development-channels", "server:other", "hello"), "problem", "channels server:other, not"),
        (("--channels", "server:conclave"), "problem", "plugins only"),
        ((*CHANNELS, "-p", "hello"), "problem", "print mode"),
        ((*CHANNELS, ""), "unknown", "does not show"),
    ],
)
async def test_the_start_of_the_surrounding_session_is_checked(
    machine: Machine, arguments: tuple[str, ...], verdict: str, words: str
) -> None:
    """Without the flag everything seems right but no message arrives: the fault that is hardest to find.

    Arguments that end in nothing look like ones that the program has written over.
    """
    session = table(await machine.doctor("--json", started_with=arguments))["session"]
    assert (session["verdict"], words in session["text"]) == (verdict, True), session
    assert (session["remedy"] is None) is (verdict == "ok")


async def test_the_flag_must_name_the_entry(machine: Machine) -> None:
    """The flag takes the name of the entry, which its owner chose."""
    machine.servers(chat=BRIDGE)
    session = table(await machine.doctor("--json"))["session"]
    assert session["verdict"] == "problem"
    assert session["remedy"] == "`claude --dangerously-load-development-channels server:chat`"


# --- Servers ---


def online(*paths: SessionPath) -> Any:
    """Answer the list of sessions."""

    async def answer(connection: Connection, frame: Frame) -> None:
        await connection.send(Pong() if isinstance(frame, Ping) else Presence(None, paths))

    return answer


async def test_every_server_is_probed_for_our_identity(machine: Machine, node: str) -> None:
    """An unreachable server does not hide the other one. An admin is shown as admin."""
    await machine.register(node, "root")
    machine.record(GONE, "http://x")
    known, away, invalid = (await machine.look())["server"]
    assert (known.verdict, "root/laptop, an admin, round trip" in known.text) == (Verdict.OK, True)
    assert (away.verdict, "Connection refused" in away.text) == (Verdict.PROBLEM, True)
    assert (invalid.verdict, "invalid server URL" in invalid.text) == (Verdict.PROBLEM, True)
    assert away.remedy is not None
    assert f"`conclave server remove {GONE}`" in away.remedy


async def test_a_key_that_a_server_does_not_know_must_be_enrolled(machine: Machine, node: str) -> None:
    """The server is reachable and the right one: its operator cannot help."""
    machine.record(node)
    (found,) = (await machine.look())["server"]
    assert found.verdict is Verdict.PROBLEM
    assert found.remedy is not None
    assert "conclave machine add" in found.remedy


async def test_a_cluster_other_than_the_pinned_one_may_be_another_server(machine: Machine, node: str) -> None:
    """The operator must confirm it before the user trusts it."""
    machine.record(node)
    assert pin(machine.config, node, "another", over=None)
    (found,) = (await machine.look())["server"]
    assert (found.verdict, "may be another server" in found.text) == (Verdict.PROBLEM, True)
    assert found.remedy is not None
    assert f"`conclave server trust {node}`" in found.remedy


async def test_a_registration_with_another_name_is_reported(machine: Machine, node: str) -> None:
    """The registered path would not be the one that whispers reach."""
    await machine.register(node, "bob")
    machine.record(node)
    (found,) = (await machine.look())["server"]
    assert found.verdict is Verdict.WARNING
    assert "knows this machine as bob/laptop; the registration says ann/laptop" in found.text
    assert found.remedy == f"`conclave server add {node}` records that"


async def test_two_urls_of_one_cluster_are_reported(machine: Machine, node: str) -> None:
    """Both are probed without superseding each other, and the first one names the cluster."""
    await machine.register(node)
    other, third = f"{node}?via=other", f"{node}?via=third"
    machine.record(other, third)
    found = await machine.look()
    assert verdicts(found["server"]) == ["ok", "ok", "ok"], found["server"]
    assert [each.text.partition(", which")[0] for each in found["duplicate"]] == [
        f"{other} is the same server as {node}",
        f"{third} is the same server as {node}",
    ]
    assert verdicts(found["duplicate"]) == ["warning", "warning"]


@pytest.mark.parametrize(
    ("seconds", "words"), [(3630, r"is 1:00:[23]\d ahead of"), (-86_430, r"is 1 day, 0:00:3\d behind")]
)
async def test_a_wrong_clock_is_reported(machine: Machine, seconds: int, words: str) -> None:
    """Times in history are the server's: with different clocks, `--since 10m` means something else."""
    async with ScriptedServer().running() as server:
        server.answer = online()
        server.headers["Date"] = formatdate(time.time() + seconds, usegmt=True)
        machine.record(server.url)
        (found,) = (await machine.look())["clock"]
    assert found.verdict is Verdict.WARNING
    assert re.search(words, found.text), found


@pytest.mark.parametrize("seconds", [0, 30, -30])
async def test_a_small_clock_difference_is_not_reported(machine: Machine, seconds: int) -> None:
    """The header has whole seconds, and the request takes time."""
    async with ScriptedServer().running() as server:
        server.answer = online()
        server.headers["Date"] = formatdate(time.time() + seconds, usegmt=True)
        machine.record(server.url)
        assert (await machine.look())["clock"] == []


async def test_a_server_that_ends_the_session_is_a_problem(machine: Machine) -> None:
    """The server's reason stays on one line."""
    async with ScriptedServer().running() as server:

        async def kill(connection: Connection, _: Frame) -> None:
            await connection.kill(Unauthorized("machine key revoked"))

        server.answer = kill
        machine.record(server.url)
        (found,) = (await machine.look())["server"]
    assert (found.verdict, "machine key revoked" in found.text) == (Verdict.PROBLEM, True)


# --- The handle ---


async def test_a_handle_in_use_is_reported(machine: Machine, node: str) -> None:
    """Two bridges with one handle supersede each other; `--as` gives the second one its own."""
    await machine.register(node)
    peer = await Peer.login(node, machine.signer(), "project")
    try:
        (outside,) = (await machine.look())["handle"]
        inside = table(await machine.doctor("--json"))["handle"]
        machine.servers(conclave={"command": "conclave", "args": ["bridge", "--as", "pilot"]})
        (pilot,) = (await machine.look())["handle"]
    finally:
        await peer.close()
    assert (outside.verdict, f"ann/laptop/project is online at {node}" in outside.text) == (Verdict.WARNING, True)
    assert (inside["verdict"], "the bridge of this session" in inside["text"]) == ("ok", True)
    assert (pilot.verdict, "`pilot`" in pilot.text) == (Verdict.OK, True)
