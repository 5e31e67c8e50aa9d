"""`conclave key`: offline, and quick: it needs neither the network nor the server's parts."""

import click

from cli import output
from cli.lazy import Verb
from cli.settings import key_path
from conclave.machine.keys import create_or_load


@click.command("key", cls=Verb, example="conclave key")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
def command(as_json: bool) -> None:
    """Show this machine's public key, and make the key if there is none yet.

    Another of your machines enrols it with `conclave machine add`.
    """
    text = create_or_load(key_path()).public_text
    if as_json:
        output.document({"public_key": text})
    else:
        output.data(text)
