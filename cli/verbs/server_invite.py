"""`conclave server-invite`: invites to register, for the admins of a server."""

import click

from cli.lazy import VerbGroup
from cli.options import invite_options, json_option, seconds, server_option
from cli.server_request import print_reply
from conclave.protocol.requests import ServerInviteCreate

_EXAMPLE = "conclave server-invite create --server wss://chat.example --uses 1 --expires-in 1d"


@click.group("server-invite", cls=VerbGroup, example=_EXAMPLE)
def command() -> None:
    """Invites to register at a server that runs with `--registration invite`; for its admins."""


@command.command("create", example=_EXAMPLE)
@server_option
@invite_options
@json_option
def create(server: str, uses: int | None, expires_in: str | None, as_json: bool) -> None:
    """Create a token with which a user can register: `conclave register --invite TOKEN`.

    Needs a server of version 0.4 or later.
    """
    print_reply(server, ServerInviteCreate(uses, seconds(expires_in)), as_json)
