"""The findings of `conclave doctor` for one fault at a time, in an otherwise healthy setup."""

import os
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cli.diagnosis.ancestors import Process
from cli.diagnosis.entries import Entries, Entry, Policy, Scope
from cli.diagnosis.facts import Claude, Commands, Facts, KeyFile, OtherDirectory, Place
from cli.diagnosis.finding import Finding, Verdict
from cli.diagnosis.probes import Answer, Probe
from cli.diagnosis.table import CHECKS, examine
from conclave.errors import ConfigError
from conclave.machine.config import Level, LocalConfig, Override, Registration
from conclave.machine.keys import MachineKey
from tests.support.programs import CONCLAVE

DIRECTORY = Path("/home/ann/deck")
URL, OTHER = "wss://chat.example", "wss://other.example"
BRIDGE = ("sh", "conclave", "bridge")  # a command that is there on every machine
GOOD_ANSWER = Answer("ann/laptop/cli-1", False, "c1", 0, 2.0, ("ann/laptop/cli-1", "bob/desk/deck"))
GOOD = Facts(
    place=Place(
        directory=DIRECTORY,
        environment={"PATH": os.environ["PATH"]},
        pid=0,
        key_path=Path("/k/key"),
        config_path=Path("/k/config.toml"),
        claude_file=Path("/home/ann/.claude.json"),
        policy_file=Path("/etc/x"),
    ),
    commands=Commands(str(CONCLAVE), CONCLAVE.resolve().parent),
    claude=Claude("/bin/claude", (2, 1, 80)),
    above=Process(7, ("claude", "--dangerously-load-development-channels", "server:conclave"), whole=True),
    entries=Entries((Entry("conclave", Scope.LOCAL, DIRECTORY, BRIDGE),)),
    policy=Policy(Path("/etc/x")),
    key=KeyFile(Path("/k/key"), 0o600, MachineKey(bytes(32))),
    config=LocalConfig(servers=(Registration(URL, "ann", "laptop"),)),
    probes=(Probe(Registration(URL, "ann", "laptop"), GOOD_ANSWER),),
)


def entries(*found: Entry) -> Entries:
    return Entries(found)


def local(name: str = "conclave", *words: str) -> Entry:
    return Entry(name, Scope.LOCAL, DIRECTORY, words or BRIDGE)


def with_environment(**values: str) -> Place:
    place = GOOD.place
    return msgspec.structs.replace(place, environment={**place.environment, **values})


def with_answers(*answers: tuple[str, dict[str, Any]]) -> dict[str, Any]:
    """Return registrations with answers that differ from the good one in some fields."""
    probes = [
        Probe(Registration(url, "ann", "laptop"), msgspec.structs.replace(GOOD_ANSWER, **fields))
        for url, fields in answers
    ]
    return {"config": LocalConfig(servers=tuple(probe.server for probe in probes)), "probes": tuple(probes)}


def levels(default: Level, *overrides: Override) -> dict[str, Any]:
    return {"config": LocalConfig(default, (Registration(URL, "ann", "laptop"),), overrides)}


def found(facts: Facts) -> dict[str, list[Finding]]:
    by_check: dict[str, list[Finding]] = {name: [] for name in CHECKS}
    for name, finding in examine(facts):
        by_check[name].append(finding)
    return by_check


def test_a_healthy_setup_has_only_ok_verdicts() -> None:
    """No finding has a remedy."""
    assert [finding for _, finding in examine(GOOD) if finding.verdict is not Verdict.OK or finding.remedy] == []


OK, WARNING, PROBLEM, UNKNOWN = Verdict
REGISTERED = LocalConfig(servers=(Registration(OTHER, "ann", "laptop"),))


def elsewhere(config: LocalConfig | ConfigError, key: KeyFile = GOOD.key, *words: str) -> dict[str, Any]:
    """Return an entry whose bridge uses another directory, and what is in there."""
    entry = local("conclave", "sh", "conclave", "--config-dir", "/e", "bridge", *words)
    return {"entries": entries(entry), "other_directories": {"/e": OtherDirectory(Path("/e"), key, config)}}


@pytest.mark.parametrize(
    ("changes", "verdict", "words"),
    [
        (elsewhere(REGISTERED), WARNING, "uses /e"),
        (elsewhere(REGISTERED, GOOD.key, "--server", OTHER), WARNING, "uses /e"),
        (elsewhere(REGISTERED, GOOD.key, "--server", URL), PROBLEM, f"told to use {URL}"),
        (elsewhere(LocalConfig()), PROBLEM, "no registration"),
        (elsewhere(ConfigError("it is broken")), PROBLEM, "it is broken"),
        (elsewhere(REGISTERED, KeyFile(Path("/e/key"), None, None)), PROBLEM, "/e/key is not there"),
        ({"entries": entries(local("c", *BRIDGE, f"--server={OTHER}"))}, PROBLEM, f"told to use {OTHER}"),
        ({"entries": entries(local("c", *BRIDGE, "--config-dir", "${X}"))}, UNKNOWN, "--config-dir ${X}"),
        (
            {"entries": entries(Entry("c", Scope.LOCAL, DIRECTORY, BRIDGE, {"XDG_CONFIG_HOME": "/x"}))},
            UNKNOWN,
            "gets XDG_CONFIG_HOME",
        ),
    ],
)
def test_an_entry_may_give_its_bridge_another_directory(changes: dict[str, Any], verdict: Verdict, words: str) -> None:
    """A healthy configuration here does not help a bridge that reads another directory or is given another server."""
    findings = found(msgspec.structs.replace(GOOD, **changes))["entry"]
    assert (findings[0].verdict, findings[-1].verdict) == (OK, verdict)
    assert words in findings[-1].text


HIDDEN = Process(7, ("claude",), whole=False)
BARE = Process(7, ("claude", "--continue"), whole=True)
PLUGIN = Process(7, ("claude", "--channels", "plugin:conclave@ours"), whole=True)
KEY = Path("/k/key")


@pytest.mark.parametrize(
    ("check", "changes", "expected"),
    [
        ("command", {"commands": Commands(None, None), "entries": Entries()}, [(PROBLEM, "not on PATH")]),
        ("command", {"commands": Commands(None, None)}, [(OK, "started as `sh`")]),
        (
            "command",
            {"commands": Commands("/bin/conclave", Path("/opt/x")), "entries": Entries()},
            [(WARNING, "another one than what runs now (in /opt/x)")],
        ),
        ("claude", {"claude": Claude(None), "above": None}, [(PROBLEM, "not on PATH")]),
        ("claude", {"claude": Claude(None)}, [(UNKNOWN, "not on PATH")]),
        ("claude", {"claude": Claude("/c", unknown="it printed none")}, [(UNKNOWN, "it printed none")]),
        ("claude", {"claude": Claude("/c", (2, 1, 79))}, [(PROBLEM, "2.1.79 is too old")]),
        ("claude", {"claude": Claude("/c", (2, 0, 99))}, [(PROBLEM, "2.0.99 is too old")]),
        ("claude", {"claude": Claude("/c", (2, 10, 0))}, [(OK, "2.10.0")]),
        ("entry", {"entries": Entries()}, [(PROBLEM, "no MCP server entry")]),
        ("entry", {"entries": Entries(), "above": PLUGIN}, [(OK, "plugin:conclave@ours")]),
        (
            "entry",
            {"entries": Entries(unread=("`f` cannot be read: no",))},
            [(UNKNOWN, "`f` cannot be read"), (PROBLEM, "no MCP server entry")],
        ),
        ("entry", {"entries": entries(local("conclave", "my-bridge.sh"))}, [(UNKNOWN, "runs `my-bridge.sh`")]),
        ("entry", {"entries": entries(local("c", "/no/conclave", "bridge"))}, [(PROBLEM, "`/no/conclave`, which")]),
        ("entry", {"entries": entries(local("c", "${HOME}/conclave", "bridge"))}, [(OK, "${HOME}/conclave")]),
        (
            "entry",
            {"entries": entries(Entry("c", Scope.USER, DIRECTORY, BRIDGE))},
            [(WARNING, "(user scope) starts a bridge in every session")],
        ),
        ("entry", {"entries": entries(Entry("c", Scope.PROJECT, DIRECTORY, BRIDGE))}, [(OK, "(project scope)")]),
        (
            "entry",
            {"entries": entries(Entry("c", Scope.LOCAL, DIRECTORY.parent, BRIDGE))},
            [(UNKNOWN, "is for /home/ann;")],
        ),
        (
            "entry",
            {"entries": entries(local("a"), Entry("b", Scope.PROJECT, DIRECTORY, BRIDGE))},
            [(OK, "`a`"), (OK, "`b`"), (WARNING, "several entries start a bridge here: `a`, `b`")],
        ),
        ("session", {"above": None}, [(UNKNOWN, "does not run in a Claude Code session")]),
        ("session", {"above": None, "place": with_environment(CLAUDECODE="1")}, [(UNKNOWN, "cannot be seen")]),
        ("session", {"above": HIDDEN}, [(UNKNOWN, "does not show how")]),
        ("session", {"above": BARE}, [(PROBLEM, "without channels")]),
        ("policy", {"policy": Policy(KEY, forbids=True)}, [(PROBLEM, "switch channels off (/k/key)")]),
        ("policy", {"policy": Policy(KEY, unread="why")}, [(UNKNOWN, "why")]),
        ("provider", {"place": with_environment(CLAUDE_CODE_USE_BEDROCK="1")}, [(PROBLEM, "Amazon Bedrock")]),
        (
            "provider",
            {"place": with_environment(CLAUDE_CODE_USE_VERTEX="true", CLAUDE_CODE_USE_FOUNDRY="TRUE")},
            [(PROBLEM, "Google Cloud"), (PROBLEM, "Microsoft Foundry")],
        ),
        ("provider", {"place": with_environment(CLAUDE_CODE_USE_BEDROCK="0")}, [(OK, "no model provider")]),
        ("key", {"key": KeyFile(KEY, None, None, "gone")}, [(PROBLEM, "/k/key is not there")]),
        ("key", {"key": KeyFile(KEY, 0o600, None, "malformed")}, [(PROBLEM, "malformed")]),
        ("key", {"key": KeyFile(KEY, 0o640, MachineKey(bytes(32)))}, [(WARNING, "mode 0640")]),
        ("key", {"key": KeyFile(KEY, 0o400, MachineKey(bytes(32)))}, [(OK, "/k/key")]),
        ("server", {"key": KeyFile(KEY, None, None, "gone"), "probes": ()}, [(UNKNOWN, "no key to log in with")]),
        ("config", {"config": ConfigError("failed to parse"), "probes": ()}, [(PROBLEM, "failed to parse")]),
        ("permissions", {"config": ConfigError("failed to parse"), "probes": ()}, []),
        ("config", {"config": LocalConfig(), "probes": ()}, [(PROBLEM, "registered nowhere")]),
        ("permissions", {"config": LocalConfig(Level.MUTE), "probes": ()}, [(OK, "by default mute")]),
        ("permissions", levels(Level.MUTE), [(WARNING, "mute everywhere")]),
        ("permissions", levels(Level.MUTE, Override(URL, Level.MUTE, "ops")), [(WARNING, "mute everywhere")]),
        ("permissions", levels(Level.MUTE, Override(f"{URL}/", Level.NOTIFY)), [(OK, "mute, 1 override")]),
        (
            "permissions",
            levels(Level.MUTE, Override(OTHER, Level.ACT), Override(OTHER, Level.ACT, "ops")),
            [(WARNING, f"levels for {OTHER}, where"), (WARNING, "mute everywhere")],
        ),
        ("clock", with_answers((URL, {"ahead_ms": 60_400}), (OTHER, {"ahead_ms": -60_400})), []),
        (
            "clock",
            with_answers((URL, {"ahead_ms": 61_000}), (OTHER, {"ahead_ms": -61_000})),
            [(WARNING, f"{URL} is 0:01:01 ahead"), (WARNING, f"{OTHER} is 0:01:01 behind")],
        ),
        ("duplicate", with_answers((URL, {}), (OTHER, {"server_id": "c2"})), []),
        ("duplicate", with_answers((URL, {"server_id": None}), (OTHER, {"server_id": None})), []),
        ("duplicate", with_answers((OTHER, {}), (URL, {})), [(WARNING, f"{URL} is the same server as {OTHER}")]),
        ("duplicate", with_answers((URL, {}), (URL, {})), [(WARNING, f"{URL} is the same server as {URL}")]),
        ("handle", {"entries": entries(local("c", *BRIDGE, "--as", "a/b"))}, [(PROBLEM, "invalid session handle")]),
        ("handle", {"entries": entries(local("c", *BRIDGE, "--as=pilot"))}, [(OK, "is `pilot`; nobody")]),
        ("handle", {"probes": ()}, [(OK, "is `deck`")]),
    ],
)
def test_each_fault_is_reported_with_a_remedy(
    check: str, changes: dict[str, Any], expected: list[tuple[Verdict, str]]
) -> None:
    """Each case changes one fact of a healthy setup."""
    facts = msgspec.structs.replace(GOOD, **changes)
    findings = found(facts)[check]
    assert [finding.verdict for finding in findings] == [verdict for verdict, _ in expected]
    for finding, (_, words) in zip(findings, expected, strict=True):
        assert words in finding.text
        assert finding.remedy or finding.verdict in {OK, UNKNOWN}


def test_remedies_are_valid_shell_commands() -> None:
    """Names with spaces and quotes are quoted."""
    entry = Entry("my server", Scope.USER, DIRECTORY, BRIDGE)
    (finding,) = found(msgspec.structs.replace(GOOD, entries=entries(entry)))["entry"]
    assert finding.remedy is not None
    assert "`claude mcp remove --scope user 'my server'`" in finding.remedy
