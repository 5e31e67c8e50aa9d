"""`conclave invite`."""

import click

from cli.lazy import VerbGroup
from cli.online import ask, json_option, server_option
from conclave.durations import InvalidDuration, parse
from conclave.v1.admin import InviteCreate
from conclave.v1.frames import Admin


@click.group(
    "invite",
    cls=VerbGroup,
    example="conclave invite create --server wss://chat.example --channel ops --uses 1 --expires-in 1d",
)
def command() -> None:
    """Invite tokens for a channel."""


@command.command(
    "create", example="conclave invite create --server wss://chat.example --channel ops --uses 1 --expires-in 1d"
)
@server_option
@click.option("--channel", required=True, help="The channel.")
@click.option("--uses", type=click.IntRange(1, 2**32 - 1), help="How many users may redeem it; unlimited unless given.")
@click.option(
    "--expires-in", metavar="DURATION", help="How long it is good: 90, 30s, 10m, 2h, 7d; for ever unless given."
)
@json_option
def create(server: str, channel: str, uses: int | None, expires_in: str | None, as_json: bool) -> None:
    """Make a token that lets whoever redeems it into a private channel, with `conclave join --token`."""
    seconds = None if expires_in is None else parse(expires_in)
    if seconds == 0:
        raise InvalidDuration(f"invalid duration `{expires_in}`: nobody could redeem the invite")
    ask(server, Admin(InviteCreate(channel, uses, seconds)), as_json)
