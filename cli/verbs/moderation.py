"""`conclave kick`, `ban`, `unban` and `bans`."""

from cli.verb_factories import list_verb, user_verb
from conclave.protocol.requests import Ban, Bans, Kick, Unban

kick = user_verb(
    "kick",
    Kick,
    """Remove one session (a path, user/machine/session) or all sessions of a user from a channel.

    They stay connected and may join again; `conclave ban` prevents that.
    """,
    target="TARGET",
    example="bob/laptop/main",
)
ban = user_verb(
    "ban",
    Ban,
    """Ban a user from a channel: end their membership and role, and remove their live sessions from it.

    The user need not exist. `conclave unban` lifts the ban.
    """,
)
unban = user_verb("unban", Unban, "Lift a ban. The membership does not come back.")
bans = list_verb("bans", Bans, "List the users who are banned from a channel; for its admins.")
