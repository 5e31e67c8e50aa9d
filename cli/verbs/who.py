"""`conclave who`."""

import click

from cli.lazy import Verb
from cli.options import json_option, server_option
from cli.server_request import print_reply
from conclave.protocol.requests import Who


@click.command("who", cls=Verb, example="conclave who --server wss://chat.example ops")
@server_option
@click.argument("channel", required=False)
@json_option
def command(server: str, channel: str | None, as_json: bool) -> None:
    """List the sessions that are online: on the server, or in one channel.

    The list of the server includes the session of this command.
    """
    print_reply(server, Who(channel), as_json)
