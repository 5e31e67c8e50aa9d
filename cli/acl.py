"""`conclave acl`."""

import click

from cli.lazy import VerbGroup
from cli.online import ask, server_option
from conclave.v1.admin import AclAdd
from conclave.v1.frames import Admin


@click.group("acl", cls=VerbGroup, example="conclave acl add --server wss://chat.example --channel ops bob")
def command() -> None:
    """Who belongs to a channel."""


@command.command("add", example="conclave acl add --server wss://chat.example --channel ops bob")
@server_option
@click.option("--channel", required=True, help="The channel.")
@click.argument("user")
def add(server: str, channel: str, user: str) -> None:
    """Make a user a member of a channel, and lift a ban on them. The user need not exist yet."""
    ask(server, Admin(AclAdd(channel, user)))
