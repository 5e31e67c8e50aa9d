"""`conclave bridge`."""

import sys
from pathlib import Path

import click

from cli.lazy import Verb
from cli.settings import config_directory, state_directory


@click.command(
    "bridge",
    cls=Verb,
    example=["claude mcp add --scope local conclave -- conclave bridge", "conclave bridge --as reviewer"],
)
@click.option("--server", "servers", multiple=True, metavar="URL", help="Only this server; may be repeated.")
@click.option("--as", "handle", metavar="HANDLE", help="The session's handle; the directory's name unless given.")
def command(servers: tuple[str, ...], handle: str | None) -> None:
    """Connect a Claude Code session to the servers that this machine is registered at.

    Speaks MCP on standard input and output: Claude Code starts it. It ends when standard input does.
    """
    from bridge.app import app  # noqa: PLC0415 - not needed for help
    from bridge.connection import handles  # noqa: PLC0415 - not needed for help

    chosen = handles.of_directory(Path.cwd()) if handle is None else handles.chosen(handle)
    sys.exit(app.run(config_directory(), state_directory(), servers, chosen))
