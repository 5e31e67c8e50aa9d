"""`conclave status`: all registered servers, asked concurrently, and the permission levels."""

from typing import TYPE_CHECKING

import click
import msgspec

from cli import output
from cli.lazy import Verb
from cli.options import json_option
from cli.settings import config_path, key_path
from cli.verbs.perm import permission_lines, permission_value
from conclave.machine.config import LocalConfig, load
from conclave.text import visible

if TYPE_CHECKING:
    from cli.server_status import ServerStatus


@click.command("status", cls=Verb, example="conclave status")
@json_option
def command(as_json: bool) -> int:
    """Check that every registered server is reachable, and show the permission levels.

    Exits with 1 if a server is unreachable.
    """
    config = load(config_path())
    statuses = _ask(config) if config.servers else []
    if as_json:
        output.document(_value(statuses, config))
    elif not statuses:
        output.data("no servers registered; run `conclave register --server <url> --username <you>`")
    else:
        for line in [*map(_line, statuses), "", *permission_lines(config)]:
            output.data(line)
    unreachable = sum(status.error is not None for status in statuses)
    if unreachable:
        output.failure(f"{unreachable} server(s) unreachable")
    return 1 if unreachable else 0


def _ask(config: LocalConfig) -> "list[ServerStatus]":
    from cli.run_async import run  # noqa: PLC0415 - nothing is asked where no server is registered
    from cli.server_status import ask_all  # noqa: PLC0415 - as above
    from conclave.machine.keys import load as load_key  # noqa: PLC0415 - as above

    return run(ask_all(config.servers, load_key(key_path())))


def _line(status: "ServerStatus") -> str:
    server = status.server
    head = f"{visible(server.url)}\t{visible(server.username)}/{visible(server.machine)}"
    if status.error is not None:
        return f"{head}\tunreachable: {visible(status.error)}"
    return f"{head}\treachable ({status.sessions} session(s) online)"


def _value(statuses: "list[ServerStatus]", config: LocalConfig) -> dict[str, object]:
    return {
        "servers": [
            {
                **msgspec.to_builtins(status.server),
                "reachable": status.error is None,
                "sessions": status.sessions,
                "error": status.error,
            }
            for status in statuses
        ],
        **permission_value(config),
    }
