"""`conclave send`."""

from typing import Any

import click

from cli import output
from cli.lazy import Verb
from cli.online import connected, server_option
from cli.running import run
from conclave.body import Body
from conclave.closing import in_words
from conclave.errors import ConclaveError, Refusal
from conclave.link import Link
from conclave.requests import Join, Request, Send
from conclave.text import visible


@click.command("send", cls=Verb, example='conclave send --server wss://chat.example --channel ops "deploy is done"')
@server_option
@click.option("--channel", required=True, help="The channel.")
@click.argument("text")
def command(server: str, channel: str, text: str) -> None:
    """Post one message to a channel."""
    run(_send(server, channel, text))
    output.success(f"sent to {visible(channel)}")


async def _send(server: str, channel: str, text: str) -> None:
    async with connected(server) as link:
        await _asked(link, Join(channel), "join")
        await _asked(link, Send(channel, Body(text=text)), "send")


async def _asked(link: Link, request: Request[Any], what: str) -> None:
    try:
        await link.request(request)
    except Refusal as error:
        raise ConclaveError(f"{what} rejected: {in_words(error)}") from error
