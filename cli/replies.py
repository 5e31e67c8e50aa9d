"""Results as people and as scripts read them."""

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


class Shown(msgspec.Struct, frozen=True):
    """A result as lines of text, and as the value that `--json` prints."""

    lines: list[str]
    value: Any


def shown(request: Request[Any], result: Any) -> Shown:
    """Return the result of a request in both forms. Names in the lines are made visible; the value keeps them."""
    match request, result:
        case Who(channel), Sessions(paths):
            return _sessions(channel, paths)
        case InviteRevoke(), Token(token):
            return _done(token)
        case _, OnChannel(name) | OnUser(name) | OnTarget(name) | OnMachine(name):
            return _done(name)
        case _:
            return _SHOW[type(result)](result)


def _done(name: str) -> Shown:
    return Shown([f"✓ {visible(name or 'ok')}"], {"ok": name})


def _sessions(channel: str | None, paths: tuple[str, ...]) -> Shown:
    scope = "server" if channel is None else visible(channel)
    return Shown([f"[{scope}] {', '.join(map(visible, paths))}"], {"channel": channel, "sessions": paths})


def _joined(result: Joined) -> Shown:
    return Shown([f"✓ joined {visible(result.channel)}"], {"joined": result.channel})


def _token(result: Token) -> Shown:
    return Shown([f"invite token: {visible(result.token)}"], {"token": result.token})


def _channels(result: Channels) -> Shown:
    lines = [
        f"{visible(row.name)}\t{row.visibility.value}" + ("\t(member)" if row.member else "") for row in result.channels
    ]
    value = [
        {"name": row.name, "visibility": row.visibility.value, "member": row.member}
        | ({} if row.admin is None else {"admin": row.admin})
        for row in result.channels
    ]
    return Shown(lines, value)


def _machines(result: Machines) -> Shown:
    lines = [f"{visible(row.name)}\t{visible(row.pubkey)}\t{visible(row.added_at)}" for row in result.machines]
    return Shown(lines, msgspec.to_builtins(result.machines))


def _users(result: Users) -> Shown:
    return Shown([visible(user) for user in result.users], result.users)


def _invites(result: Invites) -> Shown:
    lines = [
        f"{visible(invite.token)}\tuses: {'unlimited' if invite.uses_remaining is None else invite.uses_remaining}"
        f"\texpires: {visible(invite.expires_at or 'never')}"
        for invite in result.invites
    ]
    return Shown(lines, msgspec.to_builtins(result.invites))


def _trail(result: Trail) -> Shown:
    rows = [msgspec.structs.astuple(entry) for entry in result.entries]
    return Shown(["\t".join(map(visible, row)) for row in rows], msgspec.to_builtins(result.entries))


_SHOW: dict[type, Callable[[Any], Shown]] = {
    Joined: _joined,
    Token: _token,
    Channels: _channels,
    Machines: _machines,
    Users: _users,
    Invites: _invites,
    Trail: _trail,
}
