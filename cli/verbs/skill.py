"""`conclave skill`: a guide for agents."""

from importlib.resources import files
from pathlib import Path

import click

from cli import output
from cli.command_reference import command_reference
from cli.lazy import VerbGroup
from conclave.errors import ConclaveError

_DEFAULT_FOLDER = "~/.claude/skills"

_REFERENCE = """\
## Command reference

The `--help` of each command. All commands also take `--config-dir PATH` (the directory of the key and config.toml),
`-v` (log to standard error), `--version` and `-h`.
"""


@click.group("skill", cls=VerbGroup, invoke_without_command=True, example="conclave skill install")
@click.pass_context
def command(context: click.Context) -> None:
    """A guide for agents, with the help of every command: show it, or install it for Claude Code. Offline.

    Without a verb, the guide is shown.
    """
    if context.invoked_subcommand is None:
        output.data(guide())


@command.command("show", example="conclave skill show")
def show() -> None:
    """Print the guide."""
    output.data(guide())


@command.command("install", example="conclave skill install --dir .claude/skills")
@click.option(
    "--dir",
    "folder",
    metavar="D",
    default=_DEFAULT_FOLDER,
    show_default=True,
    help="The folder of skills; the guide is written to conclave/SKILL.md in it.",
)
def install(folder: str) -> None:
    """Write the guide to the folder where Claude Code looks for skills; an older guide is replaced."""
    path = Path(folder).expanduser() / "conclave" / "SKILL.md"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{guide()}\n", encoding="utf-8")
    except OSError as error:
        raise ConclaveError(f"failed to write `{path}`: {error.strerror}") from error
    output.success(f"installed the conclave skill to {path}")


def guide() -> str:
    """Return the guide, with the reference of the commands of this version."""
    root = click.get_current_context().find_root().command
    assert isinstance(root, click.Group)  # noqa: S101 - the first level
    texts = files("cli") / "guide"
    main, part = ((texts / name).read_text(encoding="utf-8") for name in ("skill.md", "bridge.md"))
    return f"{main.replace('{bridge}', part.strip())}\n{_REFERENCE}\n{command_reference(root)}".rstrip("\n")
