"""`conclave channel`."""

import click

from cli.lazy import VerbGroup
from cli.online import ask, json_option, server_option
from conclave.errors import ConfigError
from conclave.model import Visibility
from conclave.v1.admin import CreateChannel
from conclave.v1.frames import Admin, ListChannels


@click.group("channel", cls=VerbGroup, example="conclave channel list --server wss://chat.example")
def command() -> None:
    """Create and list channels."""


@command.command("create", example="conclave channel create --server wss://chat.example ops --visibility private")
@server_option
@click.argument("name")
@click.option(
    "--visibility",
    default=Visibility.PUBLIC.value,
    show_default=True,
    metavar="TIER",
    help="public, unlisted (found by name only) or private (members only).",
)
def create(server: str, name: str, visibility: str) -> None:
    """Create a channel; you become its administrator and first member."""
    try:
        tier = Visibility.parse(visibility)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    ask(server, Admin(CreateChannel(name, tier)))


@command.command("list", example="conclave channel list --server wss://chat.example --json")
@server_option
@json_option
def list_(server: str, as_json: bool) -> None:
    """List the public channels and those you are a member of."""
    ask(server, ListChannels(), as_json)
