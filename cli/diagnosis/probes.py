"""Probing every registered server: our identity there, its clock, and the sessions that are online."""

import asyncio
import time
from urllib.parse import urlsplit

import msgspec

from cli.server_request import transient_handle
from conclave.client.link import connect
from conclave.errors import ConclaveError, LinkError, LoginRefused, NotTrusted, Refusal, in_words
from conclave.machine.config import Registration
from conclave.machine.keys import MachineKey
from conclave.protocol.requests import Ping, Who
from conclave.urls import check_url

DEADLINE = 12.0
"""The time limit, in seconds, after which a server counts as unreachable."""
_NAME_SECONDS = 8.0


class Answer(msgspec.Struct, frozen=True):
    """The answer of a server. `ahead_ms` is its clock minus ours, `round_trip_ms` the duration of a ping."""

    path: str
    admin: bool
    server_id: str | None
    ahead_ms: int
    round_trip_ms: float
    sessions: tuple[str, ...]


class Probe(msgspec.Struct, frozen=True):
    """One registration, and the server's answer, or in `error` the reason why there is none.

    `refused`: the server does not know our key. `untrusted`: it may not be the pinned cluster.
    """

    server: Registration
    answer: Answer | None = None
    error: str = ""
    refused: bool = False
    untrusted: bool = False


async def probe_all(servers: tuple[Registration, ...], key: MachineKey) -> tuple[Probe, ...]:
    """Probe all servers concurrently; the results are in the order of the registrations."""
    probes = (_probe(server, key, transient_handle(number)) for number, server in enumerate(servers, 1))
    return tuple(await asyncio.gather(*probes))


async def _probe(server: Registration, key: MachineKey, handle: str) -> Probe:
    try:
        async with asyncio.timeout(DEADLINE):
            return Probe(server, await _ask(server.url, key, handle, server.cluster))
    except TimeoutError:
        return Probe(server, error=f"no answer within {DEADLINE:g}s")
    except Refusal as error:
        return Probe(server, error=in_words(error))
    except ConclaveError as error:
        refused, untrusted = isinstance(error, LoginRefused), isinstance(error, NotTrusted)
        return Probe(server, error=str(error), refused=refused, untrusted=untrusted)


async def _ask(url: str, key: MachineKey, handle: str, cluster: str | None) -> Answer:
    await _check_name(check_url(url))
    async with await connect(url, key, handle, cluster=cluster) as link:
        ahead_ms = link.server_ms() - time.time_ns() // 1_000_000
        began = time.perf_counter()
        await link.request(Ping())
        round_trip_ms = (time.perf_counter() - began) * 1000
        online = await link.request(Who())
        return Answer(str(link.path), link.admin, link.server_id, ahead_ms, round_trip_ms, online.sessions)


async def _check_name(url: str) -> None:
    """Look up the host name before connecting, so that a failure names the lookup as its cause."""
    parts = urlsplit(url)
    try:
        async with asyncio.timeout(_NAME_SECONDS):
            await asyncio.get_running_loop().getaddrinfo(parts.hostname, parts.port)
    except TimeoutError:
        raise LinkError(f"the name `{parts.hostname}` was not resolved within {_NAME_SECONDS:g}s") from None
    except (OSError, UnicodeError):
        return  # connecting fails in the same way, with a message of its own
