"""`conclave acl`."""

import click

from cli.lazy import VerbGroup
from cli.verb_factories import list_verb, user_verb
from conclave.protocol.requests import AclAdd, AclDemote, AclList, AclPromote, AclRemove


@click.group("acl", cls=VerbGroup, example="conclave acl add --server wss://chat.example --channel ops bob")
def command() -> None:
    """Members and admins of a channel."""


for verb in (
    user_verb(
        "acl add",
        AclAdd,
        "Make a user a member of a channel, and lift a ban on them. The user need not exist yet.",
    ),
    user_verb(
        "acl remove",
        AclRemove,
        """End a user's membership and remove their live sessions from the channel.

        Unless the channel is private, they may join again; `conclave ban` prevents that.
        """,
    ),
    user_verb(
        "acl promote",
        AclPromote,
        """Make a user a member and an admin of a channel, with the same rights as its creator.

        Needs a server of version 0.4 or later.
        """,
    ),
    user_verb(
        "acl demote",
        AclDemote,
        """Take the admin role from a user, who stays a member. The creator of a channel keeps the role.

        Needs a server of version 0.4 or later.
        """,
    ),
    list_verb("acl list", AclList, "List the members of a channel; for its admins."),
):
    command.add_command(verb)
