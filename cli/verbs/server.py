"""`conclave server`: the registrations in this machine's configuration."""

import click
import msgspec

from cli import output
from cli.lazy import VerbGroup
from cli.settings import config_path
from conclave.errors import ConfigError
from conclave.machine.config import Registration, load
from conclave.text import visible


@click.group("server", cls=VerbGroup, example="conclave server list")
def command() -> None:
    """The servers this machine is registered at."""


@command.command("add", example="conclave server add wss://chat.example")
@click.argument("url")
def add(url: str) -> None:
    """Record the registration at a server where the key of this machine is enrolled already.

    Logs in with the key and records the username and machine name that the server returns. Run this on your second
    machine, after `conclave machine add` on your first one.
    """
    from cli.run_async import run  # noqa: PLC0415 - the other verbs are offline
    from conclave.machine.config_edit import register  # noqa: PLC0415 - reading takes no editor of TOML

    load(config_path())  # an unreadable configuration must be known before the login
    user, machine, cluster = run(_identity(url))
    register(config_path(), Registration(url, user, machine, cluster))
    output.success(f"added `{url}` as {visible(user)}/{visible(machine)}")


async def _identity(url: str) -> tuple[str, str, str | None]:
    from cli.server_request import connected  # noqa: PLC0415 - as above

    async with connected(url) as link:
        user, machine, _ = link.path.split("/", 2)
        return user, machine, link.cluster


@command.command("list", example="conclave server list")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list.")
def list_(as_json: bool) -> None:
    """List the registrations, each with the pinned cluster if there is one. Offline."""
    servers = load(config_path()).servers
    if as_json:
        output.document(msgspec.to_builtins(servers))
        return
    for server in servers:
        cluster = "" if server.cluster is None else f"\tcluster {visible(server.cluster)}"
        output.data(f"{visible(server.url)}\t{visible(server.username)}/{visible(server.machine)}{cluster}")
    if not servers:
        output.data("no servers registered (see `conclave register`)")


@command.command("trust", example="conclave server trust wss://chat.example")
@click.argument("url")
def trust(url: str) -> None:
    """Pin the cluster that answers at a registered server now.

    A registration is pinned to the id of the cluster where it was made, and this machine proves its key to no other
    cluster. So an impostor that answers under the server's name cannot use the proof elsewhere. Use this command after
    the server was set up anew: get the id of the cluster from its operator (the id is in its log), and compare.

    Asks the server for its id, without a login, and shows the old and the new id.
    """
    from cli.run_async import run  # noqa: PLC0415 - the other verbs are offline
    from cli.server_request import transient_handle  # noqa: PLC0415 - as above
    from conclave.client.link import identify  # noqa: PLC0415 - as above
    from conclave.machine.config_edit import pin  # noqa: PLC0415 - reading takes no editor of TOML

    registration = load(config_path()).registration(url)
    if registration is None:
        raise ConfigError(f"no registration for `{url}` (see `conclave server list`)")
    before, now = registration.cluster, run(identify(url, transient_handle()))
    output.data(f"before: {_named(before)}")
    output.data(f"now: {_named(now)}")
    if before != now and not pin(config_path(), url, now, over=before):
        raise ConfigError(f"the registration of `{url}` was changed by another command; nothing was done")
    if now is None:
        output.notice("it speaks protocol v1 only: a login there could be passed on to another server")
    output.success(f"`{visible(url)}` {'is trusted as before' if before == now else 'is trusted as that from now on'}")


def _named(cluster: str | None) -> str:
    return "no cluster id" if cluster is None else f"cluster {visible(cluster)}"


@command.command("remove", example="conclave server remove wss://chat.example")
@click.argument("url")
def remove(url: str) -> None:
    """Remove the registration and the permission overrides of a server. Offline; the server is not told."""
    from conclave.machine.config_edit import forget  # noqa: PLC0415 - reading takes no editor of TOML

    forgotten = forget(config_path(), url)
    if not forgotten.registered and not forgotten.overrides:
        raise ConfigError(f"no registration for `{url}` (see `conclave server list`)")
    output.success(f"forgot `{visible(url)}` ({forgotten.overrides} permission override(s) removed)")
