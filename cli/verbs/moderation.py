"""`conclave kick`, `ban`, `unban` and `bans`."""

from cli.verb_factories import list_verb, user_verb
from conclave.protocol.requests import Ban, Bans, Kick, Unban

kick = user_verb(
    "kick",
    Kick,
    """Take a channel from one session (a path, user/machine/session) or from all sessions of a user.

    They stay connected, and may join again; `conclave ban` keeps them out.
    """,
    target="TARGET",
    example="bob/laptop/main",
)
ban = user_verb(
    "ban",
    Ban,
    """Keep a user out of a channel: end their membership and role, and take it from their live sessions.

    The user need not exist. `conclave unban` lifts it.
    """,
)
unban = user_verb("unban", Unban, "Lift a ban. It does not bring the membership back.")
bans = list_verb("bans", Bans, "List who is banned from a channel; for its admins.")
