"""`conclave completions`."""

import click
from click.shell_completion import get_completion_class

from cli import output
from cli.lazy import Verb


@click.command("completions", cls=Verb, example="source <(conclave completions bash)")
@click.argument("shell", metavar="SHELL", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> None:
    """Print a completion script for bash, zsh or fish."""
    root = click.get_current_context().find_root().command
    kind = get_completion_class(shell)
    if kind is None:
        raise click.UsageError(f"no completions for {shell}")
    output.data(kind(root, {}, "conclave", "_CONCLAVE_COMPLETE").source().rstrip("\n"))
