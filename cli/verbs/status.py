"""`conclave status`: all registered servers, asked concurrently, and the permission levels."""

import asyncio

import click
import msgspec

from cli import output
from cli.lazy import Verb
from cli.options import json_option
from cli.run_async import run
from cli.server_request import dial, transient_handle
from cli.settings import config_path, key_path
from cli.verbs.perm import permission_lines, permission_value
from conclave.errors import ConclaveError, Refusal, in_words
from conclave.machine.config import LocalConfig, Registration, load
from conclave.machine.keys import MachineKey
from conclave.machine.keys import load as load_key
from conclave.protocol.requests import Who
from conclave.text import visible

DEADLINE = 20.0
"""The time limit, in seconds, after which a server counts as unreachable."""


class ServerStatus(msgspec.Struct, frozen=True):
    """The number of other sessions that are online at a server, or the reason why it is unknown."""

    server: Registration
    sessions: int | None
    error: str | None = None


@click.command("status", cls=Verb, example="conclave status")
@json_option
def command(as_json: bool) -> int:
    """Check that every registered server is reachable, and show the permission levels.

    Exits with 1 if a server is unreachable.
    """
    config = load(config_path())
    statuses = run(_ask_all(config.servers, load_key(key_path()))) if config.servers else []
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


async def _ask_all(servers: tuple[Registration, ...], key: MachineKey) -> list[ServerStatus]:
    async with asyncio.TaskGroup() as tasks:
        asked = [
            tasks.create_task(_ask(server, key, transient_handle(number))) for number, server in enumerate(servers, 1)
        ]
    return [status.result() for status in asked]


async def _ask(server: Registration, key: MachineKey, handle: str) -> ServerStatus:
    try:
        async with asyncio.timeout(DEADLINE):
            return ServerStatus(server, await _count_others(server.url, key, handle))
    except TimeoutError:
        return ServerStatus(server, None, f"no answer within {DEADLINE:g}s")
    except Refusal as error:
        return ServerStatus(server, None, in_words(error))
    except ConclaveError as error:
        return ServerStatus(server, None, str(error))


async def _count_others(url: str, key: MachineKey, handle: str) -> int:
    async with await dial(url, key, handle) as link:
        reply = await link.request(Who())
        ours = f"{link.path.rpartition('/')[0]}/{transient_handle()}-"  # this command's sessions elsewhere
        return sum(not path.startswith(ours) for path in reply.sessions)


def _line(status: ServerStatus) -> str:
    server = status.server
    head = f"{visible(server.url)}\t{visible(server.username)}/{visible(server.machine)}"
    if status.error is not None:
        return f"{head}\tunreachable: {visible(status.error)}"
    return f"{head}\treachable ({status.sessions} session(s) online)"


def _value(statuses: list[ServerStatus], config: LocalConfig) -> dict[str, object]:
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
