"""How a command talks to a server: connect as a passing session, ask, print the reply, leave."""

import contextlib
import os
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeVar

import click

from cli import output
from cli.replies import Shown, shown
from cli.running import run
from cli.settings import key_path
from conclave.keys import load
from conclave.link import Link, connect
from conclave.requests import Request

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
    link = await connect(server, load(key_path()), handle or passing_handle())
    async with link:
        yield link


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
