"""Questions to all registered servers at the same time, for `conclave status`."""

import asyncio

import msgspec

from cli.server_request import dial, transient_handle
from conclave.errors import ConclaveError, Refusal, in_words
from conclave.machine.config import Registration
from conclave.machine.keys import MachineKey
from conclave.protocol.requests import Who

DEADLINE = 20.0
"""The time limit, in seconds, after which a server counts as unreachable."""


class ServerStatus(msgspec.Struct, frozen=True):
    """The number of other sessions that are online at a server, or the reason why it is unknown."""

    server: Registration
    sessions: int | None
    error: str | None = None


async def ask_all(servers: tuple[Registration, ...], key: MachineKey) -> list[ServerStatus]:
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
