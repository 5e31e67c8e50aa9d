"""`conclave machine`: the machines of your own account."""

import click

from cli.lazy import VerbGroup
from cli.options import json_option, server_option
from cli.server_request import print_reply
from conclave.errors import InvalidKey
from conclave.protocol.requests import ListMachines, MachineAdd, MachineRemove
from conclave.public_key import parse_public_key


@click.group("machine", cls=VerbGroup, example="conclave machine list --server wss://chat.example")
def command() -> None:
    """Enrol, list and revoke your machines."""


@command.command("add", example="conclave machine add --server wss://chat.example --name desktop --pubkey KEY")
@server_option
@click.option("--name", required=True, help="The name of the new machine.")
@click.option("--pubkey", required=True, metavar="KEY", help="The output of `conclave key` on that machine.")
def add(server: str, name: str, pubkey: str) -> None:
    """Enrol another machine under your username. Then run `conclave server add` on that machine."""
    try:
        parse_public_key(pubkey)
    except InvalidKey as error:
        raise InvalidKey(f"invalid public key: {error}") from error
    print_reply(server, MachineAdd(name, pubkey.strip()))


@command.command("list", example="conclave machine list --server wss://chat.example")
@server_option
@json_option
def list_(server: str, as_json: bool) -> None:
    """List your machines: name, public key, time of enrolment."""
    print_reply(server, ListMachines(), as_json)


@command.command("remove", example="conclave machine remove --server wss://chat.example desktop")
@server_option
@click.argument("name")
def remove(server: str, name: str) -> None:
    """Revoke a machine's key and end its sessions. Removing your last machine locks you out."""
    print_reply(server, MachineRemove(name))
