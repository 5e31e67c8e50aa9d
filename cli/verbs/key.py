"""`conclave key`: offline and fast; it imports neither the network client nor the server."""

import click

from cli import output
from cli.lazy import Verb
from cli.settings import key_path
from conclave.machine.keys import create_or_load


@click.command("key", cls=Verb, example="conclave key")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
def command(as_json: bool) -> None:
    """Show the public key of this machine; create the key if there is none yet.

    To enrol it, run `conclave machine add` on another of your machines.
    """
    text = create_or_load(key_path()).public_text
    if as_json:
        output.document({"public_key": text})
    else:
        output.data(text)
