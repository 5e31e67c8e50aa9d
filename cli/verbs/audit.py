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
    help="The maximum number of operations: the newest ones.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per line.")
def command(server: str, limit: int, as_json: bool) -> None:
    """Show the audit log of a server: every admin operation, oldest first; for admins of the server.

    Each line has the time, the session that sent the request, the operation, its target and the outcome, separated by
    tabs. Refused operations are included. Needs a server of version 0.4 or later.
    """
    request = Audit(limit)
    reply = formatted(request, fetch_result(server, request))
    for line, value in zip(reply.lines, reply.value, strict=True):
        if as_json:
            output.document(value)
        else:
            output.data(line)
