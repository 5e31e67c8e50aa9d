"""Results of requests as text for people and as JSON for scripts. Pure."""

from collections.abc import Callable
from typing import Any

import msgspec

from conclave.protocol.requests import (
    Channels,
    InviteRevoke,
    Invites,
    Joined,
    Machines,
    OnChannel,
    OnMachine,
    OnTarget,
    OnUser,
    Request,
    Sessions,
    Token,
    Trail,
    Users,
    Who,
)
from conclave.text import visible


class FormattedReply(msgspec.Struct, frozen=True):
    """A result as lines of text, and as the value that `--json` prints."""

    lines: list[str]
    value: Any


def formatted(request: Request[Any], result: Any) -> FormattedReply:
    """Return the result of a request in both forms.

    Names in the lines are escaped for terminals; the value keeps them as they are.
    """
    match request, result:
        case Who(channel), Sessions(paths):
            return _sessions(channel, paths)
        case InviteRevoke(), Token(token):
            return _done(token)
        case _, OnChannel(name) | OnUser(name) | OnTarget(name) | OnMachine(name):
            return _done(name)
        case _:
            return _SHOW[type(result)](result)


def _done(name: str) -> FormattedReply:
    return FormattedReply([f"✓ {visible(name or 'ok')}"], {"ok": name})


def _sessions(channel: str | None, paths: tuple[str, ...]) -> FormattedReply:
    scope = "server" if channel is None else visible(channel)
    return FormattedReply([f"[{scope}] {', '.join(map(visible, paths))}"], {"channel": channel, "sessions": paths})


def _joined(result: Joined) -> FormattedReply:
    return FormattedReply([f"✓ joined {visible(result.channel)}"], {"joined": result.channel})


def _token(result: Token) -> FormattedReply:
    return FormattedReply([f"invite token: {visible(result.token)}"], {"token": result.token})


def _channels(result: Channels) -> FormattedReply:
    lines = [
        f"{visible(row.name)}\t{row.visibility.value}" + ("\t(member)" if row.member else "") for row in result.channels
    ]
    value = [
        {"name": row.name, "visibility": row.visibility.value, "member": row.member}
        | ({} if row.admin is None else {"admin": row.admin})
        for row in result.channels
    ]
    return FormattedReply(lines, value)


def _machines(result: Machines) -> FormattedReply:
    lines = [f"{visible(row.name)}\t{visible(row.pubkey)}\t{visible(row.added_at)}" for row in result.machines]
    return FormattedReply(lines, msgspec.to_builtins(result.machines))


def _users(result: Users) -> FormattedReply:
    return FormattedReply([visible(user) for user in result.users], result.users)


def _invites(result: Invites) -> FormattedReply:
    lines = [
        f"{visible(invite.token)}\tuses: {'unlimited' if invite.uses_remaining is None else invite.uses_remaining}"
        f"\texpires: {visible(invite.expires_at or 'never')}"
        for invite in result.invites
    ]
    return FormattedReply(lines, msgspec.to_builtins(result.invites))


def _trail(result: Trail) -> FormattedReply:
    rows = [msgspec.structs.astuple(entry) for entry in result.entries]
    return FormattedReply(["\t".join(map(visible, row)) for row in rows], msgspec.to_builtins(result.entries))


_SHOW: dict[type, Callable[[Any], FormattedReply]] = {
    Joined: _joined,
    Token: _token,
    Channels: _channels,
    Machines: _machines,
    Users: _users,
    Invites: _invites,
    Trail: _trail,
}
