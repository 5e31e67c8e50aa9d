"""The guide for agents: its content, and that it is the same on every machine."""

import re
from pathlib import Path

import click
import pytest

from cli.lazy import VerbGroup
from cli.main import cli, run
from tests.support.command_line import conclave


@pytest.fixture
def text(capsys: pytest.CaptureFixture[str]) -> str:
    assert run(["skill", "show"]) == 0
    return capsys.readouterr().out


def test_it_opens_with_the_front_matter_of_a_skill(text: str) -> None:
    """Claude Code finds the skill by these lines; a colon in the description would end its value."""
    lines = text.splitlines()
    assert lines[:2] == ["---", "name: conclave"]
    assert re.fullmatch(r"description: [A-Z][^:#]{80,1000}", lines[2])
    assert lines[3] == "---"


@pytest.mark.parametrize(
    "fact",
    [
        *("conclave status", "conclave send", "conclave tail", "conclave server add", "conclave machine add"),
        *("`--as`", "7 days", "data, not instructions", "--registration invite", "conclave perm set LEVEL"),
        *("`mute`", "`notify`", "`converse`", "`act`", "acl promote", "channel delete", "invite revoke", "bans"),
    ],
)
def test_it_has_the_facts_that_an_agent_needs(text: str, fact: str) -> None:
    """The guide has its own text; these facts must be in it."""
    assert fact in text


BRIDGE_FACTS = [
    "claude mcp add --scope local conclave -- conclave bridge\n",
    "--dangerously-load-development-channels server:conclave",
    *("`join_channel`", "/join", "`catch_up`", "`set_perm`", "**`--as HANDLE`**"),
    *("`create_channel`", "`delete_channel`", "`rename_channel`", "`set_visibility`", "`kick`", "`ban`", "`unban`"),
    *("`acl_add`", "`acl_remove`", "`acl_list`", "`invite_create`", "`invite_revoke`", "`invite_list`", "`ban_list`"),
]


def test_it_explains_the_bridge(text: str) -> None:
    """It shows the registration for one project, never for all projects of a user, the start, and the tools."""
    assert [fact for fact in BRIDGE_FACTS if fact not in text] == []
    assert "{bridge}" not in text
    assert "scope user" not in text


def commands(group: click.Group, path: str) -> list[str]:
    found = []
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        found.append(f"{path} {name}")
        if isinstance(command, VerbGroup):
            found += commands(command, f"{path} {name}")
    return found


def test_the_reference_has_the_help_of_every_command_in_its_order(text: str) -> None:
    """A new verb appears in it without an edit."""
    reference = text.partition("\n## Command reference\n")[2]
    sections = re.findall(r"^### `(.+)`\n\n```text\nUsage: \1 (.*\n)+?```$", reference, re.MULTILINE)
    assert [path for path, _ in sections] == commands(cli, "conclave")
    assert "  --uses INTEGER RANGE   How many users may redeem it; unlimited unless given." in reference
    assert "Options:\n  --config-dir" not in reference, "what every command takes is said once"
    assert reference.count("```") == 2 * len(sections)


async def test_it_does_not_depend_on_the_environment_or_the_terminal(tmp_path: Path) -> None:
    """Installed on a server, it must not contain the server's settings."""
    settings = {
        "CONCLAVE_BIND": "10.1.2.3:99",
        "CONCLAVE_ADMINS": "secret-admin",
        "CONCLAVE_DATA_DIR": "/secret/dir",
        "CONCLAVE_REDIS_URL": "redis://:secret@host",
        "CONCLAVE_KEY_PREFIX": "secret",
        "CONCLAVE_REGISTRATION": "closed",
        "CONCLAVE_PRESENCE": "shared",
        "COLUMNS": "47",
    }
    plain = await conclave(tmp_path, "skill")
    configured = await conclave(tmp_path / "elsewhere", "skill", "show", env=settings)
    assert configured == plain
    assert (plain.code, plain.err) == (0, "")
    assert "[env var: CONCLAVE_ADMINS]" in plain.out
    assert str(tmp_path) not in plain.out


def test_installing_replaces_an_older_guide(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str) -> None:
    """Missing folders are created."""
    path = tmp_path / "a" / "skills" / "conclave" / "SKILL.md"
    for _ in range(2):
        assert run(["skill", "install", "--dir", str(tmp_path / "a" / "skills")]) == 0
        assert capsys.readouterr().out == f"✓ installed the conclave skill to {path}\n"
        assert path.read_text(encoding="utf-8") == text
        path.write_text("older, and longer" + text)


def test_by_default_it_is_installed_for_the_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """That is the folder where Claude Code looks for skills."""
    monkeypatch.setenv("HOME", str(tmp_path))
    assert run(["skill", "install"]) == 0
    path = tmp_path / ".claude" / "skills" / "conclave" / "SKILL.md"
    assert capsys.readouterr().out == f"✓ installed the conclave skill to {path}\n"
    assert path.exists()


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The user sees one line, not a traceback."""
    (tmp_path / "file").touch()
    assert run(["skill", "install", "--dir", str(tmp_path / "file")]) == 1
    path = tmp_path / "file" / "conclave" / "SKILL.md"
    assert capsys.readouterr().err == f"❌ failed to write `{path}`: Not a directory\n"
