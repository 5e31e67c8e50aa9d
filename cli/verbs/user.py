"""`conclave user`: the users of a server, for its admins."""

import click

from cli.lazy import VerbGroup
from cli.options import json_option, server_option
from cli.server_request import print_reply
from conclave.protocol.requests import ListUsers, UserRemove


@click.group("user", cls=VerbGroup, example="conclave user list --server wss://chat.example")
def command() -> None:
    """The users of a server; for its admins."""


@command.command("list", example="conclave user list --server wss://chat.example --json")
@server_option
@json_option
def list_(server: str, as_json: bool) -> None:
    """List every user of the server."""
    print_reply(server, ListUsers(), as_json)


@command.command("remove", example="conclave user remove --server wss://chat.example bob")
@server_option
@click.argument("username")
def remove(server: str, username: str) -> None:
    """Remove a user with their machines, memberships and the channels that they created, and end their sessions.

    Their messages in other channels stay. The username becomes free.
    """
    print_reply(server, UserRemove(username))
