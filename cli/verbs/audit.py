"""`conclave audit`."""

import click

from cli import output
from cli.lazy import Verb
from cli.options import server_option
from cli.reply_format import formatted
from cli.server_request import fetch_result
from conclave.protocol.requests import Audit


@click.command("audit", cls=Verb, example="conclave audit --server wss://chat.example --limit 20")
@server_option
@click.option(
    "--limit",
    type=click.IntRange(1, 2**32 - 1),
    default=100,
    show_default=True,
    metavar="N",
    help="How many operations at most: the newest ones.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per line.")
def command(server: str, limit: int, as_json: bool) -> None:
    """Show who ruled what: every admin operation, oldest first; for admins of the server.

    A line is the time, the session that asked, the operation, its target and the outcome, with tabs in between.
    Refused operations are in it, too. Needs a server of version 0.4 or later.
    """
    request = Audit(limit)
    reply = formatted(request, fetch_result(server, request))
    for line, value in zip(reply.lines, reply.value, strict=True):
        if as_json:
            output.document(value)
        else:
            output.data(line)
