"""Permission levels: offline, on real files."""

import json
from pathlib import Path

import pytest

from cli.main import run
from conclave.machine.config import Level, LocalConfig, Override, load

UPDATED = "✓ permission updated: bridges follow it at once, also those that are running\n"
CEILING = "ceiling: converse\n"
OPS = ["--server", "wss://a.example", "--channel", "ops"]
WHISPERS = ["--server", "wss://a.example", "--whisper"]


def perm(directory: Path, *arguments: str) -> int:
    return run(["--config-dir", str(directory), "perm", *arguments])


def test_levels_are_set_shown_and_unset(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An unset scope follows the default again. Any spelling of the URL identifies the server."""
    a = "wss://a.example"
    for arguments, out in [
        (["show"], f"default: notify\n{CEILING}"),
        (["set", "mute"], UPDATED),
        (["set", "converse", *OPS], UPDATED),
        (["set", "act", *WHISPERS], UPDATED),
        (["show"], f"default: mute\n{a} ops -> converse\n{a} <whisper> -> act\n{CEILING}"),
        (["set", "act", "--server", "WSS://A.example/", "--channel", "ops"], UPDATED),
        (["show"], f"default: mute\nWSS://A.example/ ops -> act\n{a} <whisper> -> act\n{CEILING}"),
        (["unset", *OPS], UPDATED),
        (["show"], f"default: mute\n{a} <whisper> -> act\n{CEILING}"),
        (["unset", *WHISPERS], UPDATED),
        (["unset"], UPDATED),
        (["set", "act", "--ceiling"], UPDATED),
        (["set", "--ceiling", "mute"], UPDATED),
        (["show"], "default: notify\nceiling: mute\n"),
        (["unset", "--ceiling"], UPDATED),
        (["show"], f"default: notify\n{CEILING}"),
    ]:
        assert perm(tmp_path, *arguments) == 0
        assert capsys.readouterr().out == out, arguments
    assert load(tmp_path / "config.toml") == LocalConfig()


def test_show_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Names are unchanged, but escaped for a terminal."""
    (tmp_path / "config.toml").write_text(
        '[[overrides]]\nserver = "wss://a"\nchannel = "o\\u001bps"\nlevel = "act"\n'
        '[[overrides]]\nserver = "wss://a"\nlevel = "mute"\n'
    )
    assert perm(tmp_path, "show", "--json") == 0
    out = capsys.readouterr().out
    assert out.rstrip("\n").isprintable()
    assert json.loads(out) == {
        "default_permission": "notify",
        "overrides": [
            {"server": "wss://a", "level": "act", "channel": "o\x1bps"},
            {"server": "wss://a", "level": "mute"},
        ],
        "permission_ceiling": "converse",
    }
    assert perm(tmp_path, "show") == 0
    assert capsys.readouterr().out == f"default: notify\nwss://a o\\x1bps -> act\nwss://a <whisper> -> mute\n{CEILING}"


SCOPE_NEEDED = "--server needs an explicit scope: pass --channel <name> or --whisper"
EXCLUSIVE = "--channel and --whisper are mutually exclusive"
SERVER_NEEDED = "--channel / --whisper require --server"
ALONE = "--ceiling holds everywhere: it takes no --server, --channel or --whisper"
BAD_SCOPES = [
    (["--server", "wss://a"], SCOPE_NEEDED),
    ([*OPS, "--whisper"], EXCLUSIVE),
    (["--channel", "ops", "--whisper"], EXCLUSIVE),
    (["--channel", "ops"], SERVER_NEEDED),
    (["--whisper"], SERVER_NEEDED),
    (["--ceiling", *OPS], ALONE),
    (["--ceiling", "--whisper"], ALONE),
    (["--ceiling", "--server", "wss://a.example"], ALONE),
]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        *((["set", "act", *scope], line) for scope, line in BAD_SCOPES),
        *((["unset", *scope], line) for scope, line in BAD_SCOPES),
        (["set", "loud"], "unknown permission level `loud` (expected mute, notify, converse, or act)"),
        (["set", "Act", *OPS], "unknown permission level `Act` (expected mute, notify, converse, or act)"),
        (
            ["set", "act", "--server", "a.example", "--whisper"],
            "invalid server URL `a.example` (expected `ws://host` or `wss://host`)",
        ),
        (["unset", *WHISPERS], "no override for wss://a.example <whisper> (see `conclave perm show`)"),
        (
            ["unset", "--server", "wss://a.example", "--channel", "Ops"],
            "no override for wss://a.example Ops (see `conclave perm show`)",
        ),
        (["unset"], "no default level is set; it is notify"),
        (["unset", "--ceiling"], "no ceiling is set; it is converse"),
        (["set", "--ceiling", "high"], "unknown permission level `high` (expected mute, notify, converse, or act)"),
    ],
)
def test_invalid_arguments_change_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], line: str
) -> None:
    """One line gives the reason, and the file stays as it is."""
    text = '# mine\n[[overrides]]\nserver = "wss://a.example"\nchannel = "ops"\nlevel = "act"\n'
    (tmp_path / "config.toml").write_text(text)
    assert perm(tmp_path, *arguments) == 1
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", f"❌ {line}\n")
    assert (tmp_path / "config.toml").read_text() == text


def test_resetting_the_default_keeps_the_rest_of_the_file(tmp_path: Path) -> None:
    """The rest is comments, unknown keys and overrides."""
    (tmp_path / "config.toml").write_text(
        '# mine\ncolour = "blue"\ndefault_permission = "act"\n\n'
        '[[overrides]]  # loud\nserver = "wss://a"\nlevel = "mute"\n'
    )
    assert perm(tmp_path, "unset") == 0
    assert (tmp_path / "config.toml").read_text() == (
        '# mine\ncolour = "blue"\n\n[[overrides]]  # loud\nserver = "wss://a"\nlevel = "mute"\n'
    )
    assert load(tmp_path / "config.toml").overrides == (Override("wss://a", Level.MUTE),)


def test_an_explicit_default_level_can_be_unset(tmp_path: Path) -> None:
    """The file has an entry for it, even if the value is the program's own default."""
    assert perm(tmp_path, "set", "notify") == 0
    assert perm(tmp_path, "unset") == 0
    assert "default_permission" not in (tmp_path / "config.toml").read_text()
