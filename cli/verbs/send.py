"""`conclave send`."""

import asyncio
import secrets

import click

from cli import output
from cli.lazy import Verb
from cli.options import server_option
from cli.run_async import run
from cli.server_request import connected
from conclave.backoff import Backoff
from conclave.client.link import Link
from conclave.client.retry import in_doubt, may_retry, not_before
from conclave.errors import ConclaveError, LinkError, LinkLost, Refusal, in_words
from conclave.protocol.body import Body
from conclave.protocol.requests import Join, Send
from conclave.text import visible

AGAIN_SECONDS = 20.0
"""The time limit for sending a message again whose reply was lost."""


class Unanswered(ConclaveError):
    """The message was sent, and its outcome is unknown. `again`: sending it once more does not post it twice."""

    def __init__(self, cause: LinkLost | Refusal, *, again: bool) -> None:
        why = in_words(cause) if isinstance(cause, Refusal) else str(cause)
        super().__init__(f"{why}; the message may have been delivered")
        self.again = again
        self.lost = isinstance(cause, LinkLost)
        self.seconds = not_before(cause)


class Rejected(ConclaveError):
    """The server has refused the request; nothing was posted."""

    def __init__(self, what: str, refusal: Refusal) -> None:
        super().__init__(f"{what} rejected: {in_words(refusal)}")
        self.passing = may_retry(refusal)
        self.seconds = not_before(refusal)


@click.command("send", cls=Verb, example='conclave send --server wss://chat.example --channel ops "deploy is done"')
@server_option
@click.option("--channel", required=True, help="The channel.")
@click.argument("text")
def command(server: str, channel: str, text: str) -> None:
    """Post one message to a channel.

    If the connection is lost before the server has confirmed the message, or the server does not know whether it was
    posted, the message is sent again and is still posted only once. A server of protocol v1 cannot recognise a repeated
    message; there the command fails and says that the message may have been delivered.
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
    """Send a message until there is a reply, or its reply is lost again.

    Raises:
        Unanswered: if the outcome stays unknown: the first copy may have arrived.
    """
    pause, lost, seconds = Backoff(first=0.2, longest=2.0), unanswered.lost, unanswered.seconds
    try:
        async with asyncio.timeout(AGAIN_SECONDS):
            while seconds < AGAIN_SECONDS:
                await asyncio.sleep(max(pause.wait(), seconds))
                try:
                    async with connected(server) as link:
                        if link.version == 1:
                            raise ConclaveError("it would be posted twice")
                        await _post(link, message)
                        return
                except Unanswered as error:
                    if not error.again or (lost and error.lost):
                        raise
                    lost, seconds = error.lost, error.seconds
                except Rejected as error:
                    if not error.passing:
                        raise
                    seconds = error.seconds
                except LinkError as error:
                    if not may_retry(error):
                        raise
                    seconds = not_before(error)
    except (ConclaveError, TimeoutError):
        raise unanswered from None
    raise unanswered


async def _post(link: Link, message: Send) -> None:
    """Join and post. Raises: Unanswered; Rejected; LinkError if the message was not sent."""
    try:
        await link.request(Join(message.channel))
    except Refusal as refusal:
        raise Rejected("join", refusal) from refusal
    try:
        await link.request(message)
    except LinkLost as error:
        raise Unanswered(error, again=link.version > 1 and may_retry(error)) from error
    except Refusal as refusal:
        if link.version > 1 and in_doubt(refusal):
            raise Unanswered(refusal, again=True) from refusal
        raise Rejected("send", refusal) from refusal
