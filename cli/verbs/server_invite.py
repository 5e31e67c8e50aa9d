"""`conclave server-invite`: who may register, for the admins of a server."""

import click

from cli.lazy import VerbGroup
from cli.online import ask, json_option, server_option
from cli.terms import lifetime, terms_options
from conclave.protocol.requests import ServerInviteCreate

_EXAMPLE = "conclave server-invite create --server wss://chat.example --uses 1 --expires-in 1d"


@click.group("server-invite", cls=VerbGroup, example=_EXAMPLE)
def command() -> None:
    """Invites to register at a server that runs with `--registration invite`; for its admins."""


@command.command("create", example=_EXAMPLE)
@server_option
@terms_options
@json_option
def create(server: str, uses: int | None, expires_in: str | None, as_json: bool) -> None:
    """Make a token with which somebody may register: `conclave register --invite TOKEN`.

    Needs a server of version 0.4 or later.
    """
    ask(server, ServerInviteCreate(uses, lifetime(expires_in)), as_json)
