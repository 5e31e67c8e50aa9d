"""`conclave doctor` with files, programs and processes of others: it ends in time with any of them."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.diagnosis.ancestors import Process, ask_ps, claude_above, look_in_proc
from cli.diagnosis.entries import Policy, Scope, read_entries, read_policy
from cli.diagnosis.facts import Facts, Place, gather, read_key
from cli.diagnosis.finding import Finding, Verdict
from cli.diagnosis.programs import first_match
from cli.diagnosis.table import CHECKS, examine
from conclave.errors import ConfigError
from tests.support.waiting import wait_until

# --- Claude Code's files ---

OURS = {"command": "conclave", "args": ["bridge"]}


def servers(**found: object) -> dict[str, object]:
    return {"mcpServers": found}


@pytest.mark.parametrize(
    ("user", "project", "above", "expected"),
    [
        ({}, None, None, []),
        ({"projects": {"@": servers(c=OURS)}}, None, None, [("c", Scope.LOCAL)]),
        ({"projects": {"@/sub": servers(c=OURS)}}, None, None, []),
        (servers(c=OURS), None, None, [("c", Scope.USER)]),
        ({}, servers(c=OURS), None, [("c", Scope.PROJECT)]),
        ({}, None, servers(c=OURS), [("c", Scope.PROJECT)]),
        ({**servers(c=OURS), "projects": {"@": servers(c=OURS)}}, servers(c=OURS), None, [("c", Scope.LOCAL)]),
        ({**servers(c=OURS), "projects": {"@": servers(c={"command": "x"})}}, None, None, []),
        (servers(a=OURS), servers(b=OURS), None, [("b", Scope.PROJECT), ("a", Scope.USER)]),
        (servers(x={"command": "uvx", "args": ["conclave-cli", "bridge"]}), None, None, [("x", Scope.USER)]),
        (servers(x={"command": "/a/conclave", "args": ["-v", "bridge", 3]}), None, None, [("x", Scope.USER)]),
        (servers(x={"command": "conclave", "args": ["serve"]}), None, None, []),
        (servers(x={"command": "bridge", "args": ["conclave"]}), None, None, []),
        (servers(conclave={"command": "x"}), None, None, [("conclave", Scope.USER)]),
        (servers(conclave={"url": "https://x"}, x="conclave bridge"), None, None, []),
        ({"projects": [], "mcpServers": [OURS]}, {"mcpServers": "x"}, [1], []),
    ],
)
def test_the_entries_of_a_directory_are_found_as_claude_code_finds_them(
    tmp_path: Path, user: object, project: object, above: object, expected: list[tuple[str, Scope]]
) -> None:
    """Of several entries with one name the nearest one applies; entries of other programs are left out."""
    directory = tmp_path / "work" / "deck"
    directory.mkdir(parents=True)
    (tmp_path / ".claude.json").write_text(json.dumps(user).replace("@", str(directory)))
    for folder, value in ((directory, project), (directory.parent, above)):
        if value is not None:
            (folder / ".mcp.json").write_text(json.dumps(value))
    entries = read_entries(directory, tmp_path / ".claude.json")
    assert [(entry.name, entry.scope) for entry in entries.found] == expected
    assert entries.unread == ()


def test_an_entry_of_the_repository_is_found_in_its_subdirectories(tmp_path: Path) -> None:
    """Claude Code stores some of its settings per repository."""
    directory = tmp_path / "repo" / "part"
    for folder in (directory, tmp_path / "repo" / ".git"):
        folder.mkdir(parents=True)
    (tmp_path / "c").write_text(json.dumps({"projects": {str(tmp_path / "repo"): servers(c=OURS)}}))
    (entry,) = read_entries(directory, tmp_path / "c").found
    assert (entry.scope, entry.folder) == (Scope.LOCAL, tmp_path / "repo")


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=5) | st.just("/deck"),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["mcpServers", "projects", "/deck", "command", "args", "channelsEnabled", "x"]), inner
        )
    ),
    max_leaves=12,
)


@given(content=st.binary(max_size=40) | _JSON.map(lambda value: json.dumps(value).encode()))
def test_any_content_of_another_programs_file_is_tolerated(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    """Its layout may change; an unreadable file must not stop the other checks."""
    path = tmp_path_factory.mktemp("claude") / "file"
    path.write_bytes(content)
    entries, policy = read_entries(Path("/deck"), path), read_policy(path)
    assert (len(entries.unread) > 0) is (policy.unread is not None)


def test_a_pipe_in_the_place_of_a_file_is_not_read(tmp_path: Path) -> None:
    """Reading a pipe may never end."""
    os.mkfifo(tmp_path / "pipe")
    assert read_policy(tmp_path / "pipe").unread == f"`{tmp_path / 'pipe'}` is no file"


@pytest.mark.parametrize(
    ("content", "forbids"),
    [('{"channelsEnabled": false}', True), ('{"channelsEnabled": true}', False), ("{}", False), (None, False)],
)
def test_managed_settings_can_switch_channels_off(tmp_path: Path, content: str | None, forbids: bool) -> None:
    """Claude Code then drops events silently."""
    path = tmp_path / "managed-settings.json"
    if content is not None:
        path.write_text(content)
    assert read_policy(path) == Policy(path, forbids)


# --- Key and configuration ---


@pytest.mark.parametrize(
    ("content", "words"), [("", "32-byte seed"), ("!" * 43, "malformed"), ("A" * 20, "32-byte seed")]
)
def test_a_broken_key_differs_from_a_missing_one(tmp_path: Path, content: str, words: str) -> None:
    """A missing key can be created; a broken one may be an identity that must be restored."""
    path = tmp_path / "key"
    assert read_key(path).mode is None
    path.write_text(content)
    path.chmod(0o600)
    broken = read_key(path)
    assert (broken.key, broken.mode, words in broken.error) == (None, 0o600, True)
    assert content == "" or content not in broken.error


def by_check(facts: Facts) -> dict[str, list[Finding]]:
    found: dict[str, list[Finding]] = {name: [] for name in CHECKS}
    for name, finding in examine(facts):
        found[name].append(finding)
    return found


async def test_broken_files_do_not_stop_the_other_checks(tmp_path: Path) -> None:
    """One fault must not hide the next."""
    for name in ("key", "config.toml", "claude.json", "policy.json"):
        (tmp_path / name).write_text("oops")
    (tmp_path / "claude").write_text("no program")
    (tmp_path / "claude").chmod(0o755)
    place = Place(
        directory=tmp_path,
        environment={"PATH": str(tmp_path)},
        pid=0,
        key_path=tmp_path / "key",
        config_path=tmp_path / "config.toml",
        claude_file=tmp_path / "claude.json",
        policy_file=tmp_path / "policy.json",
    )
    findings = by_check(await gather(place))
    assert {name: [each.verdict for each in findings[name]] for name in ("key", "config", "claude", "policy")} == {
        "key": [Verdict.PROBLEM],
        "config": [Verdict.PROBLEM],
        "claude": [Verdict.UNKNOWN],
        "policy": [Verdict.UNKNOWN],
    }
    assert [each.verdict for each in findings["entry"]] == [Verdict.UNKNOWN, Verdict.PROBLEM]
    assert "Exec format error" in findings["claude"][0].text


async def test_the_directory_that_an_entry_names_is_read(tmp_path: Path) -> None:
    """Paths are relative to the session's directory, as for its bridge. The command's own one is not read twice."""
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.toml").write_text("oops")
    found = {name: {**OURS, "args": ["--config-dir", name, "bridge"]} for name in ("other", ".")}
    (tmp_path / ".mcp.json").write_text(json.dumps(servers(**found)))
    place = Place(
        directory=tmp_path,
        environment={},
        pid=0,
        key_path=tmp_path / "key",
        config_path=tmp_path / "config.toml",
        claude_file=tmp_path / "claude.json",
        policy_file=tmp_path / "policy.json",
    )
    (other,) = (await gather(place)).other_directories.values()
    assert other.directory == tmp_path / "other"
    assert isinstance(other.config, ConfigError)


# --- Programs ---

NUMBER = re.compile(r"\d+")


async def answer(script: str, deadline: float = 20) -> str | None:
    found = await first_match(NUMBER, "/bin/sh", "-c", script, deadline=deadline)
    return None if found is None else found[0]


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("echo a warning; echo 12 13", "12"),
        ("echo nothing", None),
        ("exit 3", None),
        ("echo 5; exit 3", "5"),
        ("read -r line; echo 1$?", "11"),
        ("head -c 3000000 /dev/zero | tr '\\0' x; echo 7", None),
        ("yes no", None),
    ],
)
async def test_the_answer_is_found_in_a_programs_output(script: str, expected: str | None) -> None:
    """The program gets no input, and endless output is not read to the end."""
    assert await answer(script) == expected


async def test_a_program_that_hangs_is_killed_with_its_children(tmp_path: Path) -> None:
    """A check leaves no processes behind."""
    note = tmp_path / "pid"
    with pytest.raises(TimeoutError):
        await answer(f"sleep 600 & echo $! > {note}; wait", deadline=0.3)
    pid = int(note.read_text())
    await wait_until(lambda: not alive(pid), what="the program's child has ended")


async def test_a_background_child_of_a_program_is_not_waited_for(tmp_path: Path) -> None:
    """A service, for instance, may keep the output open; the answer and the end of the command do not wait."""
    note = tmp_path / "pid"
    try:
        assert await answer(f"sleep 600 & echo $! > {note}; echo 4") == "4"
        assert alive(int(note.read_text()))
    finally:
        os.kill(int(note.read_text()), 9)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


# --- Processes ---


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        ("claude", True),
        ("/usr/bin/claude --continue", True),
        ("node /usr/bin/claude", True),
        ("/usr/bin/node /lib/node_modules/@anthropic-ai/claude-code/cli.js -c", True),
        ("/home/ann/.local/share/claude/versions/2.1.283", True),
        ("vi claude", False),
        ("/home/claude/bin/python x", False),
        ("claude-desktop", False),
        ("bash -c claude", False),
        ("node server.js /x/claude-code/y", False),
        ("", False),
    ],
)
def test_claude_code_is_recognised_by_its_command_line(argv: str, expected: bool) -> None:
    """Every kind of installation is recognised, and no other program whose name contains the same text."""
    assert Process(1, tuple(argv.split()), whole=True).is_claude is expected


@given(st.lists(st.sampled_from(["-x", "--channels", "--channels=server:c", "server:a", "plugin:b", "", "=", "a,b"])))
def test_the_values_of_an_option_follow_it(words: list[str]) -> None:
    """Values before the option, or after another one, do not belong to it."""
    argv = ("claude", *words)
    expected, last = [], ""
    for word in argv:
        last = word if word.startswith("-") else last
        if last.startswith("--channels") and word.partition("=")[2] + word != "":
            expected += [word.partition("=")[2] or word]
    channels = [each for each in expected if each.startswith(("server:", "plugin:"))]
    assert list(Process(1, argv, whole=True).allowed_channels) == channels


LOOKS = [look_in_proc, *([ask_ps] if shutil.which("ps") else [])]


@pytest.mark.parametrize("look", LOOKS)
async def test_a_session_is_found_among_the_ancestors_of_its_shells(
    tmp_path: Path, look: Callable[[int], Awaitable[Any]]
) -> None:
    """A command in a session runs below one or two shells, and a process may have any name."""
    program = tmp_path / "a) S 1 (b"
    program.symlink_to("/bin/sh")
    inner = "sleep 600 & echo $!; wait; exit"
    words = ["claude", "-c", f"sh -c '{inner}'; exit", "claude", "--channels", "server:x"]
    with subprocess.Popen(words, executable=str(program), stdout=subprocess.PIPE, start_new_session=True) as process:  # noqa: ASYNC220
        try:
            assert process.stdout is not None
            pid = int(process.stdout.readline())
            above = await claude_above(pid, look)
            assert above is not None
            assert (above.pid, above.whole, above.allowed_channels) == (process.pid, True, ("server:x",))
            assert await look(process.pid) == (above, os.getpid())
        finally:
            os.killpg(process.pid, 9)


@pytest.mark.parametrize("look", LOOKS)
async def test_without_visible_processes_no_session_is_found(look: Callable[[int], Awaitable[Any]]) -> None:
    """A container hides the ancestors, and a process may end during the search."""
    assert await claude_above(2**31 - 2, look) is None
