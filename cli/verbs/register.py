"""`conclave register`."""

import platform

import click

from cli import output
from cli.lazy import Verb
from cli.options import server_option
from cli.run_async import run
from cli.server_request import transient_handle
from cli.settings import config_path, key_path
from conclave.client.link import connect
from conclave.client.trust import Pins
from conclave.errors import ConfigError
from conclave.machine.config import Registration, load
from conclave.machine.config_edit import register
from conclave.machine.keys import MachineKey, create_or_load
from conclave.names import NameKind, check_name
from conclave.text import visible


@click.command(
    "register", cls=Verb, example="conclave register --server wss://chat.example --username ann --machine laptop"
)
@server_option
@click.option("--username", required=True, metavar="NAME", help="The name to claim.")
@click.option("--machine", metavar="NAME", help="What to call this machine; its host name unless given.")
@click.option("--invite", metavar="TOKEN", help="An invite to the server, where it registers only who has one.")
def command(server: str, username: str, machine: str | None, invite: str | None) -> None:
    """Claim a username at a server, with this machine as its first one.

    Makes this machine's key if there is none yet. To enrol a second machine under a name that you have, use
    `conclave machine add` on the first one and `conclave server add` on the second.
    """
    user = check_name(NameKind.USER, username)
    machine = check_name(NameKind.MACHINE, machine or platform.node())
    config = load(config_path())  # one that cannot be read is better known before the name is claimed
    expected = Pins(config_path(), config).expected(server)
    path, cluster = run(_claim(server, create_or_load(key_path()), (user, machine), invite, expected))
    claimed, machine, _ = path.split("/", 2)
    try:
        register(config_path(), Registration(server, claimed, machine, cluster))
    except ConfigError as error:
        raise ConfigError(
            f"{error}; the server has accepted the registration: run `conclave server add {server}` once that is fixed"
        ) from error
    output.success(f"registered {visible(path)}")


async def _claim(
    server: str, key: MachineKey, claim: tuple[str, str], invite: str | None, expected: str | None
) -> tuple[str, str | None]:
    """Register; return the path, and the cluster that it counts at."""
    async with await connect(server, key, transient_handle(), register=claim, invite=invite, cluster=expected) as link:
        return link.path, link.cluster
