"""`conclave invite`."""

import re

import click
from typing_extensions import override

from cli.lazy import Verb, VerbGroup
from cli.options import channel_option, invite_options, json_option, seconds, server_option
from cli.server_request import print_reply
from cli.verb_factories import list_verb
from conclave.protocol.requests import InviteCreate, InviteList, InviteRevoke


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
@channel_option
@invite_options
@json_option
def create(server: str, channel: str, uses: int | None, expires_in: str | None, as_json: bool) -> None:
    """Create a token for a private channel. A user who redeems it with `conclave join --token` becomes a member."""
    print_reply(server, InviteCreate(channel, uses, seconds(expires_in)), as_json)


class _TokenVerb(Verb):
    """A verb with a token as argument: 32 characters, of which the first may be a dash, as in an option."""

    @override
    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        tokens = [word for word in args if re.fullmatch(r"-[\w-]{31}", word, re.ASCII)]
        if tokens and "--" not in args:
            args = [*(word for word in args if word not in tokens), "--", *tokens]
        return super().parse_args(ctx, args)


@command.command("revoke", cls=_TokenVerb, example="conclave invite revoke --server wss://chat.example TOKEN")
@server_option
@click.argument("token")
def revoke(server: str, token: str) -> None:
    """Revoke a token. Members who joined with it stay members. The reply is the same for an unknown token."""
    print_reply(server, InviteRevoke(token))


command.add_command(
    list_verb(
        "invite list", InviteList, "List the valid tokens of a channel, with the remaining uses and the expiry of each."
    )
)
