"""The command line itself: help, global flags, exit codes, and the modules that it must not import."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import click
import pytest

from cli import main as main_module
from cli.lazy import VerbGroup
from cli.main import _ROWS, cli, run
from conclave import __version__
from conclave.errors import Code, ConclaveError, Refusal
from tests.support.command_line import conclave, start

SERVER = {"aiohttp", "prometheus_client", "redis", "relay", "structlog", "uvloop"}
NETWORK = {"asyncio", "nacl", "ssl", "websockets"}
EDITOR = {"filelock", "tomlkit"}
PARSERS = {"importlib.metadata", "logging", "msgspec", "orjson", "platformdirs", "rich", "tomllib", "typing_extensions"}
NOWHERE = ["--server", "ws://127.0.0.1:9", "--channel", "ops"]


def every_command() -> list[tuple[str, click.Command]]:
    found = []
    context = click.Context(cli)
    for name in cli.list_commands(context):
        command = cli.get_command(context, name)
        assert command is not None
        found.append((name, command))
        if isinstance(command, VerbGroup):
            found += [(f"{name} {verb}", inner) for verb, inner in command.commands.items()]
    return found


@pytest.mark.parametrize(("name", "command"), every_command(), ids=[name for name, _ in every_command()])
def test_every_verb_has_help_with_an_example_of_itself(name: str, command: click.Command) -> None:
    """Users read the example first, so it must be one of this verb."""
    assert command.help
    text = command.get_help(click.Context(command, info_name=name))
    assert f"conclave {name}" in text.partition("Example:")[2]
    for parameter in command.params:
        assert isinstance(parameter, click.Argument) or getattr(parameter, "help", None), parameter.name


def test_the_table_of_commands_leads_to_commands_of_that_name() -> None:
    """The table names modules as text, which no type checker follows."""
    for name, row in _ROWS.items():
        assert row.load().name == name


@pytest.mark.parametrize(
    ("arguments", "unused"),
    [
        (["--version"], {"click", *PARSERS, *EDITOR, *NETWORK, *SERVER}),
        (["-V"], {"click", *PARSERS, *EDITOR, *NETWORK, *SERVER}),
        (["--help"], {*PARSERS, *EDITOR, *NETWORK, *SERVER}),
        (["completions", "fish"], {*PARSERS, *EDITOR, *NETWORK, *SERVER}),
        (["@", "key"], {*PARSERS, *EDITOR, *NETWORK, *SERVER} - {"nacl"}),
        (["@", "status"], {"logging", "orjson", "platformdirs", "rich", *EDITOR, *NETWORK, *SERVER}),
        (["@", "server", "list"], {"logging", "orjson", "platformdirs", "rich", *EDITOR, *NETWORK, *SERVER}),
        (["@", "perm", "show"], {"logging", "orjson", "platformdirs", "rich", *EDITOR, *NETWORK, *SERVER}),
        (["@", "perm", "set", "notify"], {"nacl", "orjson", "platformdirs", "rich", "websockets", *SERVER}),
        (["@", "send", *NOWHERE, "hi"], {"conclave.protocol.v1", "orjson", "platformdirs", "rich", *EDITOR, *SERVER}),
        (["top", "--once", "--interval=0.2", "127.0.0.1:9"], {"nacl", "relay", "redis", "rich", "websockets", *EDITOR}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_command_imports_only_what_it_uses(tmp_path: Path, arguments: list[str], unused: set[str]) -> None:
    """Imports are most of a command's time, and a laptop does not have the server's packages."""
    program = (
        "import sys; from cli.__main__ import main; main();"
        "print('imported:', *[name for name in sys.stdin.read().split() if name in sys.modules], file=sys.stderr)"
    )
    words = [each for word in arguments for each in (["--config-dir", str(tmp_path)] if word == "@" else [word])]
    (tmp_path / "key").write_text("A" * 43)
    finished = subprocess.run(
        [sys.executable, "-c", program, *words],
        input=" ".join(unused),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env={name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")},
    )
    assert finished.stderr.splitlines()[-1] == "imported:"


@pytest.mark.parametrize(
    "arguments", [["--version"], ["-V"], ["key", "--version"], ["machine", "list", "--version"], ["-v", "--version"]]
)
def test_the_version_is_printed_anywhere_on_the_line(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    """The options that the verb requires are not needed for it."""
    assert run(arguments) == 0
    assert capsys.readouterr().out == f"conclave {__version__}\n"


def test_the_configuration_directory_is_taken_anywhere_on_the_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before the verb, between noun and verb, and after the verb."""
    for number, arguments in enumerate(
        (["--config-dir", "@", "key"], ["key", "--config-dir", "@"], ["key", "-v", "--config-dir", "@"])
    ):
        directory = tmp_path / str(number)
        assert run([str(directory) if word == "@" else word for word in arguments]) == 0
        assert (directory / "key").exists()
    assert run(["server", "--config-dir", str(tmp_path / "0"), "list"]) == 0
    assert capsys.readouterr().out.endswith("no servers registered (see `conclave register`)\n")


@pytest.mark.parametrize(
    "arguments",
    [[], ["machine"], ["bogus"], ["who"], ["key", "--bogus"], ["completions", "elvish"], ["invite", "create"]],
)
def test_a_usage_error_exits_with_2_and_prints_no_data(
    capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    """A command line without a verb is a usage error, too."""
    assert run(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Usage: conclave" in captured.err


def test_an_unsupported_shell_gets_the_list_of_supported_ones(capsys: pytest.CaptureFixture[str]) -> None:
    """The original supported two more shells."""
    assert run(["completions", "powershell"]) == 2
    assert "'bash', 'zsh', 'fish'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ConclaveError("plain"), "❌ plain"),
        (ConclaveError("two\nlines \x1b[31m"), r"❌ two\nlines \x1b[31m"),
        (Refusal(Code.NOT_FOUND, "channel `x` not found"), "❌ not found: channel `x` not found"),
        (
            ModuleNotFoundError("no", name="tomlkit.items"),
            "❌ this command needs `tomlkit`, which is not installed: pip install 'conclave-cli[client]'",
        ),
        (
            ModuleNotFoundError("no", name="redis"),
            "❌ this command needs `redis`, which is not installed: pip install 'conclave-cli[server]'",
        ),
        (ModuleNotFoundError("No module named 'x'", name="x"), "❌ internal error: No module named 'x'"),
        (ZeroDivisionError("oops"), "❌ internal error: ZeroDivisionError: oops (run again with -v to see where)"),
    ],
)
def test_an_error_is_one_line_on_standard_error_and_exit_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception, line: str
) -> None:
    """The text of a peer must not add lines or colours."""

    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(main_module.cli, "main", fail)
    assert run(["key"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == f"{line}\n"


def test_an_interrupt_exits_with_130(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Shells expect this code; no traceback is printed."""

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(main_module.cli, "main", interrupt)
    assert run(["key"]) == 130
    assert capsys.readouterr().err == ""


async def test_a_closed_standard_output_ends_the_command_quietly(tmp_path: Path) -> None:
    """`conclave … | head -1` must not print a traceback."""
    process = await start(tmp_path, "key", env={"PYTHONUNBUFFERED": "1"}, installed=True)
    assert process.stdout is not None
    process.stdout._transport.close()  # type: ignore[attr-defined] # asyncio hides the pipe
    assert process.stderr is not None
    assert await process.stderr.read() == b""
    assert await process.wait() == -signal.SIGPIPE


async def test_a_locale_without_unicode_does_not_break_the_output(tmp_path: Path) -> None:
    """A cron job runs in the C locale."""
    env = {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    finished = await conclave(tmp_path, "server", "remove", "ws://x", env=env, installed=True)
    assert finished.code == 1
    assert finished.err == "\\u274c no registration for `ws://x` (see `conclave server list`)\n"


async def test_verbose_shows_the_trace_of_an_unexpected_error(tmp_path: Path) -> None:
    """Without -v the user sees one line; with it a developer sees the place."""
    program = (
        "import cli.verbs.key; cli.verbs.key.create_or_load = None\n"
        "from cli.main import main; import sys; sys.exit(main())"
    )
    command = [sys.executable, "-c", program, "--config-dir", str(tmp_path), "key"]
    plain = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)  # noqa: ASYNC221
    verbose = subprocess.run([*command, "-v"], capture_output=True, text=True, timeout=60, check=False)  # noqa: ASYNC221
    assert "Traceback" not in plain.stderr
    assert "Traceback" in verbose.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completions_are_a_script_for_conclave(capsys: pytest.CaptureFixture[str], shell: str) -> None:
    """Users source the output as it is."""
    assert run(["completions", shell]) == 0
    assert "_CONCLAVE_COMPLETE" in capsys.readouterr().out


async def test_the_completion_script_is_answered(tmp_path: Path) -> None:
    """The script calls the program in this way when the user presses the tab key."""
    env = {"_CONCLAVE_COMPLETE": "bash_complete", "COMP_WORDS": "conclave ser", "COMP_CWORD": "1"}
    finished = await conclave(tmp_path, env=env, installed=True)
    assert finished.out.split() == ["plain,serve", "plain,server", "plain,server-invite"]


# --- key and server, offline ---


def test_key_prints_the_same_public_key_every_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The key is created once, and both output forms show it."""
    assert run(["--config-dir", str(tmp_path), "key"]) == 0
    text = capsys.readouterr().out
    assert len(text) == 44
    assert run(["--config-dir", str(tmp_path), "key", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"public_key": text.strip()}


def test_server_list_and_remove_work_offline(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The output is the original's. Any spelling of the URL works, and overrides without a registration are removed."""
    (tmp_path / "config.toml").write_text(
        '[[servers]]\nurl = "wss://a.example"\nusername = "ann"\nmachine = "lap\\ttop"\n'
        '[[overrides]]\nserver = "wss://a.example/"\nlevel = "act"\n'
        '[[overrides]]\nserver = "wss://b.example"\nlevel = "act"\n'
    )
    base = ["--config-dir", str(tmp_path), "server"]
    for arguments, code, out in [
        (["list"], 0, "wss://a.example\tann/lap\\ttop\n"),
        (["list", "--json"], 0, '[{"url":"wss://a.example","username":"ann","machine":"lap\\ttop"}]\n'),
        (["remove", "WSS://A.example/"], 0, "✓ forgot `WSS://A.example/` (1 permission override(s) removed)\n"),
        (["remove", "wss://b.example"], 0, "✓ forgot `wss://b.example` (1 permission override(s) removed)\n"),
        (["remove", "wss://b.example"], 1, ""),
        (["list"], 0, "no servers registered (see `conclave register`)\n"),
        (["list", "--json"], 0, "[]\n"),
    ]:
        assert run([*base, *arguments]) == code
        assert capsys.readouterr().out == out


def test_status_without_registrations_needs_neither_key_nor_network(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The output names the next step."""
    assert run(["--config-dir", str(tmp_path), "status"]) == 0
    expected = "no servers registered; run `conclave register --server <url> --username <you>`\n"
    assert capsys.readouterr().out == expected
    assert list(tmp_path.iterdir()) == []
