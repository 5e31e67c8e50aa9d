"""Replies as people and as scripts read them."""

from collections.abc import Callable
from typing import Any

import msgspec

from conclave.errors import LinkError
from conclave.text import visible
from conclave.v1.frames import (
    Ack,
    AuditList,
    ChannelList,
    Frame,
    InviteList,
    InviteToken,
    Joined,
    MachineList,
    Presence,
    UserList,
    kind,
)


class Shown(msgspec.Struct, frozen=True):
    """A reply as lines of text, and as the value that `--json` prints."""

    lines: list[str]
    value: Any


def shown(reply: Frame) -> Shown:
    """Return a reply in both forms. Every name in the lines is made visible; the value keeps them as they are.

    Raises:
        LinkError: for a frame that is no reply.
    """
    show = _SHOW.get(type(reply))
    if show is None:
        raise LinkError(f"unexpected response: {kind(reply)}")
    return show(reply)


def _ack(reply: Ack) -> Shown:
    return Shown([f"✓ {visible(reply.detail or 'ok')}"], {"ok": reply.detail})


def _joined(reply: Joined) -> Shown:
    return Shown([f"✓ joined {visible(reply.channel)}"], {"joined": reply.channel})


def _invite_token(reply: InviteToken) -> Shown:
    return Shown([f"invite token: {visible(reply.token)}"], {"token": reply.token})


def _channels(reply: ChannelList) -> Shown:
    lines = [
        f"{visible(channel.name)}\t{channel.visibility.value}" + ("\t(member)" if channel.member else "")
        for channel in reply.channels
    ]
    return Shown(lines, msgspec.to_builtins(reply.channels))


def _machines(reply: MachineList) -> Shown:
    lines = [f"{visible(row.name)}\t{visible(row.pubkey)}\t{visible(row.added_at)}" for row in reply.machines]
    return Shown(lines, msgspec.to_builtins(reply.machines))


def _users(reply: UserList) -> Shown:
    return Shown([visible(user) for user in reply.users], reply.users)


def _invites(reply: InviteList) -> Shown:
    lines = [
        f"{visible(invite.token)}\tuses: {'unlimited' if invite.uses_remaining is None else invite.uses_remaining}"
        f"\texpires: {visible(invite.expires_at or 'never')}"
        for invite in reply.invites
    ]
    return Shown(lines, msgspec.to_builtins(reply.invites))


def _presence(reply: Presence) -> Shown:
    paths = [str(path) for path in reply.sessions]
    scope = "server" if reply.channel is None else visible(reply.channel)
    line = f"[{scope}] {', '.join(visible(path) for path in paths)}"
    return Shown([line], {"channel": reply.channel, "sessions": paths})


def _audit(reply: AuditList) -> Shown:
    rows = [msgspec.structs.astuple(entry) for entry in reply.entries]
    return Shown(["\t".join(map(visible, row)) for row in rows], msgspec.to_builtins(reply.entries))


_SHOW: dict[type, Callable[[Any], Shown]] = {
    Ack: _ack,
    Joined: _joined,
    InviteToken: _invite_token,
    ChannelList: _channels,
    MachineList: _machines,
    UserList: _users,
    InviteList: _invites,
    Presence: _presence,
    AuditList: _audit,
}
