"""`conclave join`."""

import click

from cli.lazy import Verb
from cli.options import server_option
from cli.output import notice
from cli.server_request import print_reply
from cli.settings import config_path
from conclave.machine.config import Level, Override
from conclave.machine.config_edit import set_override
from conclave.protocol.requests import Join


@click.command("join", cls=Verb, example="conclave join --server wss://chat.example ops --token TOKEN")
@server_option
@click.argument("channel")
@click.option("--token", help="An invite token; redeeming it makes you a member for good.")
@click.option("--perm", "level", metavar="LEVEL", help="Also set the channel's level: mute, notify, converse or act.")
def command(server: str, channel: str, token: str | None, level: str | None) -> None:
    """Check that you may join a channel, or redeem an invite to it.

    The session of this command ends immediately. To receive messages use `conclave tail`, or the join_channel tool of a
    live Claude Code session.
    """
    chosen = None if level is None else Level.parse(level)
    print_reply(server, Join(channel, token))
    if chosen is not None:
        set_override(config_path(), Override(server, chosen, channel))
    notice("access verified; a live session subscribes through its own join_channel tool")
