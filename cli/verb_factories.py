"""Factories for verbs that send one request about a channel and differ only in that request."""

from collections.abc import Callable
from typing import Any

import click

from cli.lazy import Verb
from cli.options import channel_option, json_option, server_option
from cli.server_request import print_reply
from conclave.protocol.requests import Request

_EXAMPLE = "conclave {path} --server wss://chat.example --channel ops"


def user_verb(
    path: str, request: Callable[[str, str], Request[Any]], text: str, *, target: str = "USER", example: str = "bob"
) -> click.Command:
    """Make the verb `path` (for example `acl add`): a request about a channel and a user."""

    @click.command(path.rsplit(maxsplit=1)[-1], cls=Verb, help=text, example=f"{_EXAMPLE.format(path=path)} {example}")
    @server_option
    @channel_option
    @click.argument("user", metavar=target)
    def verb(server: str, channel: str, user: str) -> None:
        print_reply(server, request(channel, user))

    return verb


def list_verb(path: str, request: Callable[[str], Request[Any]], text: str) -> click.Command:
    """Make the verb `path` (for example `acl list`): a list that only the admins of a channel may see."""

    @click.command(path.rsplit(maxsplit=1)[-1], cls=Verb, help=text, example=_EXAMPLE.format(path=path))
    @server_option
    @channel_option
    @json_option
    def verb(server: str, channel: str, as_json: bool) -> None:
        print_reply(server, request(channel), as_json)

    return verb
