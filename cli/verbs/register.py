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
@click.option("--username", required=True, metavar="NAME", help="The username to claim.")
@click.option("--machine", metavar="NAME", help="The name of this machine; by default its host name.")
@click.option("--invite", metavar="TOKEN", help="A server invite, if the server requires one.")
def command(server: str, username: str, machine: str | None, invite: str | None) -> None:
    """Claim a username at a server, with this machine as the first one of that user.

    Creates the key of this machine if there is none yet. To enrol a second machine under your username, run
    `conclave machine add` on the first one and `conclave server add` on the second.
    """
    user = check_name(NameKind.USER, username)
    machine = check_name(NameKind.MACHINE, machine or platform.node())
    config = load(config_path())  # an unreadable one must be known before the name is claimed
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
    """Register; return the session path, and the id of the cluster if the server has one."""
    async with await connect(server, key, transient_handle(), register=claim, invite=invite, cluster=expected) as link:
        return link.path, link.cluster
