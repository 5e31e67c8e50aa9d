"""`conclave server`: the registrations in this machine's configuration."""

import click
import msgspec

from cli import output
from cli.lazy import VerbGroup
from cli.online import connected
from cli.running import run
from cli.settings import config_path
from conclave.config import Registration, load
from conclave.config_edit import forget, register
from conclave.errors import ConfigError
from conclave.text import visible


@click.group("server", cls=VerbGroup, example="conclave server list")
def command() -> None:
    """The servers this machine is registered at."""


@command.command("add", example="conclave server add wss://chat.example")
@click.argument("url")
def add(url: str) -> None:
    """Record a server where this machine's key is enrolled already.

    Logs in with the key, learns from the server who it belongs to, and writes that down. This is the step for your
    second machine, after `conclave machine add` on your first one.
    """
    load(config_path())  # a configuration that cannot be read is better known before than after
    user, machine = run(_identity(url))
    register(config_path(), Registration(url, user, machine))
    output.success(f"added `{url}` as {visible(user)}/{visible(machine)}")


async def _identity(url: str) -> tuple[str, str]:
    async with connected(url) as link:
        user, machine, _ = link.path.split("/", 2)
        return user, machine


@command.command("list", example="conclave server list")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list.")
def list_(as_json: bool) -> None:
    """List the registrations. Offline."""
    servers = load(config_path()).servers
    if as_json:
        output.document(msgspec.to_builtins(servers))
        return
    for server in servers:
        output.data(f"{visible(server.url)}\t{visible(server.username)}/{visible(server.machine)}")
    if not servers:
        output.data("no servers registered (see `conclave register`)")


@command.command("remove", example="conclave server remove wss://chat.example")
@click.argument("url")
def remove(url: str) -> None:
    """Forget a server and the permission overrides for it. Offline; nothing changes at the server."""
    forgotten = forget(config_path(), url)
    if not forgotten.registered and not forgotten.overrides:
        raise ConfigError(f"no registration for `{url}` (see `conclave server list`)")
    output.success(f"forgot `{visible(url)}` ({forgotten.overrides} permission override(s) removed)")
