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
@click.option("--server", "servers", multiple=True, metavar="URL", help="Use only this server; repeatable.")
@click.option(
    "--as", "handle", metavar="HANDLE", help="The handle of the session; by default the name of the directory."
)
def command(servers: tuple[str, ...], handle: str | None) -> None:
    """Connect a Claude Code session to the servers that this machine is registered at.

    An MCP server on standard input and output, started by Claude Code. It ends when standard input does.
    """
    from bridge.app import app  # noqa: PLC0415 - not needed for help
    from bridge.connection import handles  # noqa: PLC0415 - not needed for help

    chosen = handles.of_directory(Path.cwd()) if handle is None else handles.chosen(handle)
    sys.exit(app.run(config_directory(), state_directory(), servers, chosen))
