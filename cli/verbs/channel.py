"""`conclave channel`."""

import click

from cli.lazy import VerbGroup
from cli.options import json_option, server_option
from cli.server_request import print_reply
from conclave.errors import ConfigError
from conclave.model import Visibility
from conclave.protocol.requests import ChannelCreate, ChannelDelete, ChannelRename, ChannelVisibility, ListChannels

_TIERS = "public, unlisted (found by name only) or private (members only)"


@click.group("channel", cls=VerbGroup, example="conclave channel list --server wss://chat.example")
def command() -> None:
    """Create, list, change and delete channels."""


@command.command("create", example="conclave channel create --server wss://chat.example ops --visibility private")
@server_option
@click.argument("name")
@click.option(
    "--visibility", default=Visibility.PUBLIC.value, show_default=True, metavar="TIER", help=f"{_TIERS.capitalize()}."
)
def create(server: str, name: str, visibility: str) -> None:
    """Create a channel; you become its admin and first member."""
    print_reply(server, ChannelCreate(name, _tier(visibility)))


@command.command("list", example="conclave channel list --server wss://chat.example --json")
@server_option
@json_option
def list_(server: str, as_json: bool) -> None:
    """List the public channels and those you are a member of."""
    print_reply(server, ListChannels(), as_json)


@command.command("delete", example="conclave channel delete --server wss://chat.example ops")
@server_option
@click.argument("name")
def delete(server: str, name: str) -> None:
    """Delete a channel with its members, invites, bans and messages. This cannot be undone."""
    print_reply(server, ChannelDelete(name))


@command.command("rename", example="conclave channel rename --server wss://chat.example ops operations")
@server_option
@click.argument("name")
@click.argument("new_name", metavar="NEW")
def rename(server: str, name: str, new_name: str) -> None:
    """Rename a channel. Members, invites, bans, messages and the sessions in it stay as they are."""
    print_reply(server, ChannelRename(name, new_name))


@command.command(
    "set-visibility",
    example="conclave channel set-visibility --server wss://chat.example ops private",
    help=f"""Set the visibility of a channel: {_TIERS}.

    When a channel becomes private, sessions of users who are not members are removed from it.
    """,
)
@server_option
@click.argument("name")
@click.argument("visibility", metavar="TIER")
def set_visibility(server: str, name: str, visibility: str) -> None:
    print_reply(server, ChannelVisibility(name, _tier(visibility)))


def _tier(text: str) -> Visibility:
    try:
        return Visibility.parse(text)
    except ValueError as error:
        raise ConfigError(str(error)) from error
