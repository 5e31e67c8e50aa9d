"""`conclave send`."""

import asyncio
import secrets
from typing import Any

import click

from cli import output
from cli.lazy import Verb
from cli.online import connected, server_option
from cli.running import run
from conclave.backoff import Backoff
from conclave.body import Body
from conclave.closing import LinkLost, in_words, may_retry, not_before
from conclave.errors import ConclaveError, LinkError, Refusal
from conclave.link import Link
from conclave.requests import Join, Request, Send
from conclave.text import visible

AGAIN_SECONDS = 20.0
"""How long a message whose answer was lost is tried to be sent again."""


class Unanswered(ConclaveError):
    """The link was lost after the message was sent. With `again`, sending it once more does not say it twice."""

    def __init__(self, lost: LinkLost, *, again: bool) -> None:
        super().__init__(f"{lost}; the message may have been delivered")
        self.again = again
        self.seconds = not_before(lost)


@click.command("send", cls=Verb, example='conclave send --server wss://chat.example --channel ops "deploy is done"')
@server_option
@click.option("--channel", required=True, help="The channel.")
@click.argument("text")
def command(server: str, channel: str, text: str) -> None:
    """Post one message to a channel.

    If the connection is lost before the server has confirmed the message, it is sent again, and still posted once. A
    server of protocol v1 cannot tell that it is the same one: then this fails, and says so.
    """
    run(_send(server, Send(channel, Body(text=text), secrets.token_urlsafe(16))))
    output.success(f"sent to {visible(channel)}")


async def _send(server: str, message: Send) -> None:
    try:
        async with connected(server) as link:
            await _post(link, message)
    except Unanswered as unanswered:
        if not unanswered.again:
            raise
        await _send_again(server, message, unanswered)


async def _send_again(server: str, message: Send, unanswered: Unanswered) -> None:
    """Send a message once more, as soon as there is a connection. Whatever fails now, the first one may have arrived.

    Raises:
        Unanswered: if it cannot be made sure of.
    """
    pause = Backoff(first=0.2, longest=2.0)
    try:
        async with asyncio.timeout(AGAIN_SECONDS):
            while True:
                await asyncio.sleep(max(pause.wait(), unanswered.seconds))
                try:
                    async with connected(server) as link:
                        if link.version == 1:
                            raise unanswered
                        await _post(link, message)
                        return
                except LinkError as error:
                    if not may_retry(error):
                        raise
    except (ConclaveError, TimeoutError):
        raise unanswered from None


async def _post(link: Link, message: Send) -> None:
    await _asked(link, Join(message.channel), "join")
    try:
        await _asked(link, message, "send")
    except LinkLost as lost:
        raise Unanswered(lost, again=link.version > 1 and may_retry(lost)) from lost


async def _asked(link: Link, request: Request[Any], what: str) -> None:
    try:
        await link.request(request)
    except Refusal as error:
        raise ConclaveError(f"{what} rejected: {in_words(error)}") from error
