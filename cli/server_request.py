"""The way of a verb that asks a server: connect as a transient session, send one request, print the reply, leave."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from typing import Any, TypeVar

from cli import output
from cli.reply_format import FormattedReply, formatted
from cli.run_async import run
from cli.settings import config_path, key_path
from conclave.client.link import Link, connect
from conclave.client.trust import Pins
from conclave.machine.config import load
from conclave.machine.keys import MachineKey
from conclave.machine.keys import load as load_key
from conclave.protocol.requests import Request
from conclave.text import visible

_R = TypeVar("_R")


def transient_handle(number: int | None = None) -> str:
    """Return the session handle of a command that stays only for its request.

    A command with several sessions numbers them: two URLs may lead to one server, where two sessions with one path
    supersede each other.
    """
    return f"cli-{os.getpid()}" if number is None else f"cli-{os.getpid()}-{number}"


@contextlib.asynccontextmanager
async def connected(server: str, handle: str | None = None) -> AsyncIterator[Link]:
    """Log in with this machine's key; the link is closed at the end of the block."""
    async with await dial(server, load_key(key_path()), handle or transient_handle()) as link:
        yield link


async def dial(server: str, key: MachineKey, handle: str) -> Link:
    """Log in at the cluster that the configuration pins for this URL.

    A registration without a pin gets one here: the first cluster that proves its id (trust on first use).

    Raises:
        ConclaveError: as `connect` does, and if the configuration, which has the pins, cannot be read.
    """
    path = config_path()
    pins = Pins(path, await asyncio.to_thread(load, path))
    link = await connect(server, key, handle, cluster=pins.expected(server))
    try:
        if await pins.note(server, link.cluster):
            output.notice(f"`{visible(server)}` is remembered as cluster `{link.cluster}` from now on")
    except BaseException:
        await link.close()
        raise
    return link


def print_reply(server: str, request: Request[Any], as_json: bool = False) -> None:
    """Send one request and print the reply."""
    _print(formatted(request, fetch_result(server, request)), as_json)


def fetch_result(server: str, request: Request[_R]) -> _R:
    """Send one request and return its result. Raises: Refusal, LinkError."""
    return run(_fetch(server, request))


async def _fetch(server: str, request: Request[_R]) -> _R:
    async with connected(server) as link:
        return await link.request(request)


def _print(reply: FormattedReply, as_json: bool) -> None:
    if as_json:
        output.document(reply.value)
        return
    for line in reply.lines:
        output.data(line)
