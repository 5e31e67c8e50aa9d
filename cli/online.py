"""How a command talks to a server: connect as a passing session, ask, print the reply, leave."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeVar

import click

from cli import output
from cli.replies import Shown, shown
from cli.running import run
from cli.settings import config_path, key_path
from conclave.client.link import Link, connect
from conclave.client.trust import Pins
from conclave.machine.config import load
from conclave.machine.keys import MachineKey
from conclave.machine.keys import load as load_key
from conclave.protocol.requests import Request
from conclave.text import visible

_Command = TypeVar("_Command", bound=Callable[..., Any])
_R = TypeVar("_R")


def server_option(command: _Command) -> _Command:
    option = click.option("--server", required=True, metavar="URL", help="The server, as ws:// or wss:// URL.")
    return option(command)


def channel_option(command: _Command) -> _Command:
    return click.option("--channel", required=True, help="The channel.")(command)


def json_option(command: _Command) -> _Command:
    return click.option("--json", "as_json", is_flag=True, help="Print the reply as JSON.")(command)


def passing_handle(number: int | None = None) -> str:
    """Return the session handle of a command that stays only for its question.

    A command with several sessions numbers them: two URLs may be one server, where two of one path end each other.
    """
    return f"cli-{os.getpid()}" if number is None else f"cli-{os.getpid()}-{number}"


@contextlib.asynccontextmanager
async def connected(server: str, handle: str | None = None) -> AsyncIterator[Link]:
    """Log in with this machine's key, for as long as the block lasts."""
    async with await dial(server, load_key(key_path()), handle or passing_handle()) as link:
        yield link


async def dial(server: str, key: MachineKey, handle: str) -> Link:
    """Log in at the cluster that is expected there; where none is yet, the first one that proves itself is from now on.

    Raises:
        ConclaveError: as `connect` does, and if the configuration cannot be read: it says whom to expect.
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


def ask(server: str, request: Request[Any], as_json: bool = False) -> None:
    """Ask one question and print the reply."""
    print_shown(shown(request, fetch(server, request)), as_json)


def fetch(server: str, request: Request[_R]) -> _R:
    """Ask one question and return the result."""
    return run(_ask(server, request))


def print_shown(reply: Shown, as_json: bool) -> None:
    if as_json:
        output.document(reply.value)
        return
    for line in reply.lines:
        output.data(line)


async def _ask(server: str, request: Request[_R]) -> _R:
    async with connected(server) as link:
        return await link.request(request)
