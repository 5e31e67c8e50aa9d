"""`conclave status`: every registered server at once, and the autonomy levels."""

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
"""Seconds after which a server counts as unreachable, whatever it is still busy with."""


class Probe(msgspec.Struct, frozen=True):
    """What one server answered: how many other sessions are online, or why it is not known."""

    server: Registration
    sessions: int | None
    error: str | None = None


@click.command("status", cls=Verb, example="conclave status")
@json_option
def command(as_json: bool) -> int:
    """Ask every registered server whether it is there, and show the permission levels.

    Exits with 1 if a server is unreachable.
    """
    config = load(config_path())
    probes = run(_probe_all(config.servers, load_key(key_path()))) if config.servers else []
    if as_json:
        output.document(_value(probes, config))
    elif not probes:
        output.data("no servers registered; run `conclave register --server <url> --username <you>`")
    else:
        for line in [*map(_line, probes), "", *permission_lines(config)]:
            output.data(line)
    unreachable = sum(probe.error is not None for probe in probes)
    if unreachable:
        output.failure(f"{unreachable} server(s) unreachable")
    return 1 if unreachable else 0


async def _probe_all(servers: tuple[Registration, ...], key: MachineKey) -> list[Probe]:
    async with asyncio.TaskGroup() as tasks:
        probes = [
            tasks.create_task(_probe(server, key, transient_handle(number))) for number, server in enumerate(servers, 1)
        ]
    return [probe.result() for probe in probes]


async def _probe(server: Registration, key: MachineKey, handle: str) -> Probe:
    try:
        async with asyncio.timeout(DEADLINE):
            return Probe(server, await _count_others(server.url, key, handle))
    except TimeoutError:
        return Probe(server, None, f"no answer within {DEADLINE:g}s")
    except Refusal as error:
        return Probe(server, None, in_words(error))
    except ConclaveError as error:
        return Probe(server, None, str(error))


async def _count_others(url: str, key: MachineKey, handle: str) -> int:
    async with await dial(url, key, handle) as link:
        reply = await link.request(Who())
        ours = f"{link.path.rpartition('/')[0]}/{transient_handle()}-"  # the other probes may be there, too
        return sum(not path.startswith(ours) for path in reply.sessions)


def _line(probe: Probe) -> str:
    server = probe.server
    head = f"{visible(server.url)}\t{visible(server.username)}/{visible(server.machine)}"
    if probe.error is not None:
        return f"{head}\tunreachable: {visible(probe.error)}"
    return f"{head}\treachable ({probe.sessions} session(s) online)"


def _value(probes: list[Probe], config: LocalConfig) -> dict[str, object]:
    return {
        "servers": [
            {
                **msgspec.to_builtins(probe.server),
                "reachable": probe.error is None,
                "sessions": probe.sessions,
                "error": probe.error,
            }
            for probe in probes
        ],
        **permission_value(config),
    }
