"""The directory: who exists and who may do what. Every check and its action are one script."""

import asyncio
import secrets
from collections.abc import Sequence
from typing import Literal

import msgspec

from conclave.model import AuditEntry, InviteInfo, MachineInfo, Visibility
from relay.redis import scripts
from relay.redis.client import RedisClient
from relay.redis.keys import Keys
from relay.redis.timestamps import rfc3339

Verdict = Literal["ok", "denied", "missing", "taken", "revoked"]
"""`denied`: the caller may know of the channel but not do this; `missing`: it is absent, or hidden from the caller;
`taken`: another channel has the name; `revoked`: the caller's key was revoked, alone or with its user."""

Registration = Literal["open", "closed", "invite"]
"""Who may register: everybody, nobody but the admins that the operator named, or whoever has an invite."""


class Outcome(msgspec.Struct, frozen=True):
    """The verdict on an operation, and what has to be announced before it is acknowledged.

    `announcements` are all that are pending, by subject, also those of earlier operations: a caller may be repeating an
    operation whose first attempt ended before its announcement.
    """

    verdict: Verdict
    announcements: dict[str, str]


class JoinDecision(msgspec.Struct, frozen=True):
    """How a request to join ended: `ok` with the channel's id and the version of who may hear it, or a refusal."""

    verdict: Literal["ok", "private", "missing", "revoked"]
    channel_id: str = ""
    version: int = 0
    admin: bool = False
    """Whether the caller may administer it."""


class Listing(msgspec.Struct, frozen=True):
    """A channel as one user may know of it."""

    channel_id: str
    name: str
    visibility: Visibility
    member: bool
    admin: bool


class Caller(msgspec.Struct, frozen=True):
    """Who asks, as far as the directory's rules and its audit trail are concerned."""

    path: str
    pubkey: str
    user: str
    admin: bool

    @property
    def role(self) -> str:
        return "admin" if self.admin else "user"


class Directory:
    """Users, machine keys, channels, members, invites. Every method raises StoreUnavailable."""

    def __init__(self, client: RedisClient, keys: Keys) -> None:
        self._client = client
        self._keys = keys
        self._dir = [keys.directory]

    async def cluster_id(self) -> str:
        """Return the cluster's id, which the first node makes up: 24 random bytes as base64url."""
        _, kept = await asyncio.gather(
            self._client.call("SET", self._keys.cluster, secrets.token_urlsafe(24), "NX"),
            self._client.call("GET", self._keys.cluster),
        )
        return _word(kept)

    async def owner_of(self, pubkey: str) -> tuple[str, str] | None:
        """Return the user and the machine that a public key is enrolled for."""
        found = await self._client.call("HGET", self._keys.machine_keys, pubkey)
        if found is None:
            return None
        user, _, machine = bytes(found).decode().partition("/")
        return user, machine

    async def enroll(
        self, user: str, machine: str, pubkey: str, *, policy: Registration, invite: str
    ) -> Literal["ok", "taken", "enrolled", "closed", "uninvited"]:
        """Claim a username together with its first machine, or neither."""
        return await self._word(scripts.ENROLL, user, machine, pubkey, policy, invite)  # type: ignore[return-value]

    async def create_server_invite(self, caller: Caller, token: str, uses: int | None, seconds: int | None) -> Verdict:
        args = (caller.path, caller.pubkey, caller.role, token, _or_dash(uses), _or_dash(seconds))
        return await self._word(scripts.SERVER_INVITE, *args)  # type: ignore[return-value]

    async def add_machine(
        self, caller: Caller, machine: str, pubkey: str
    ) -> Literal["ok", "revoked", "named", "enrolled"]:
        args = (caller.path, caller.pubkey, caller.user, machine, pubkey)
        return await self._word(scripts.MACHINE_ADD, *args)  # type: ignore[return-value]

    async def remove_machine(self, caller: Caller, user: str, machine: str) -> Outcome:
        """Revoke a machine's key; `ok` also if there is no such machine."""
        args = (caller.path, caller.pubkey, caller.user, caller.role, user, machine)
        return await self._outcome(scripts.MACHINE_REMOVE, *args)

    async def remove_user(self, caller: Caller, user: str) -> Outcome:
        """Remove a user and all that is theirs, in one step; `ok` also if there is no such user."""
        args = (caller.path, caller.pubkey, caller.role, user)
        return await self._outcome(scripts.USER_REMOVE, *args)

    async def machines(self, user: str) -> list[MachineInfo]:
        rows = _pairs(await self._client.call("HGETALL", self._keys.machines(user)))
        machines = []
        for name, row in sorted(rows.items()):
            pubkey, _, added = row.partition(" ")
            machines.append(MachineInfo(name, pubkey, rfc3339(int(added))))
        return machines

    async def users(self) -> list[str]:
        return sorted(_words(await self._client.call("HKEYS", self._keys.users)))

    async def acquaintances(self, user: str) -> set[str]:
        """Return the users who are members of a channel of which this user is a member too."""
        return set(await self._words(scripts.ACQUAINTANCES, user))

    async def create_channel(
        self, caller: Caller, name: str, visibility: Visibility
    ) -> Literal["ok", "taken", "revoked"]:
        args = (caller.path, caller.pubkey, secrets.token_hex(8), name, visibility.value, caller.user)
        return await self._word(scripts.CHANNEL_CREATE, *args)  # type: ignore[return-value]

    async def channels(self, caller: Caller) -> list[Listing]:
        """Return the channels that the caller may know of, by name."""
        flat = _words(await self._client.run(scripts.CHANNEL_LIST, self._dir, caller.user, caller.role))
        rows = zip(flat[::5], flat[1::5], flat[2::5], flat[3::5], flat[4::5], strict=True)
        return sorted(
            (
                Listing(found, name, Visibility(seen), member == "1", admin == "1")
                for found, name, seen, member, admin in rows
            ),
            key=lambda channel: channel.name,
        )

    async def join(self, name: str, caller: Caller, token: str | None) -> JoinDecision:
        """Decide on a join; a good invite makes the user a member in the same step."""
        args = (name, caller.path, caller.pubkey, caller.user, caller.role, token or "")
        verdict, *more = await self._words(scripts.JOIN, *args)
        if not more:
            return JoinDecision(verdict)  # type: ignore[arg-type]
        return JoinDecision("ok", more[0], int(more[1]), more[2] == "1")

    async def administer(
        self, operation: str, name: str, caller: Caller, *, inside: str, argument: str = ""
    ) -> Outcome:
        """Carry out a channel operation that has no result of its own; see administer.lua.

        `inside` is the id of the channel that the caller's session has joined by this name, or ''.
        """
        args = (operation, name, caller.path, caller.pubkey, caller.user, caller.role, inside, argument)
        return await self._outcome(scripts.ADMINISTER, *args)

    async def create_invite(
        self, name: str, caller: Caller, *, inside: str, token: str, uses: int | None, seconds: int | None
    ) -> Verdict:
        terms = f"{token} {_or_dash(uses)} {_or_dash(seconds)}"
        return (await self.administer("invite_create", name, caller, inside=inside, argument=terms)).verdict

    async def revoke_invite(self, token: str, caller: Caller) -> Verdict:
        args = (token, caller.path, caller.pubkey, caller.user, caller.role)
        return await self._word(scripts.INVITE_REVOKE, *args)  # type: ignore[return-value]

    async def inspect(self, operation: str, name: str, caller: Caller, *, inside: str) -> tuple[Verdict, list[str]]:
        """Return what only a channel's admins may see: `acl_list` and `ban_list` are users, sorted."""
        args = (operation, name, caller.path, caller.pubkey, caller.user, caller.role, inside)
        verdict, *rows = await self._words(scripts.INSPECT, *args)
        return verdict, sorted(rows)  # type: ignore[return-value]

    async def invites(self, name: str, caller: Caller, *, inside: str) -> tuple[Verdict, list[InviteInfo]]:
        """Return a channel's outstanding invites."""
        args = ("invite_list", name, caller.path, caller.pubkey, caller.user, caller.role, inside)
        verdict, *flat = await self._words(scripts.INSPECT, *args)
        rows = zip(flat[::2], flat[1::2], strict=True)
        return verdict, sorted((_invite(*row) for row in rows), key=lambda invite: invite.token)  # type: ignore[return-value]

    async def id_of(self, name: str) -> str | None:
        """Return the id of the channel that has this name, whoever may know of it."""
        found = await self._client.call("HGET", self._keys.names, name)
        return None if found is None else _word(found)

    async def review(
        self, channel_id: str, sessions: Sequence[tuple[str, str, int]]
    ) -> tuple[str, int, list[str]] | None:
        """Look again at sessions in a channel, each a path, a public key, and the version at which it was let in.

        Returns the channel's name, the version that was looked at, and for each session why it has to leave, or '';
        None if the channel was deleted.
        """
        flat = [part for session in sessions for part in session]
        answer = await self._words(scripts.REVIEW, channel_id, *flat)
        return (answer[0], int(answer[1]), answer[2:]) if answer else None

    async def audit(self, limit: int) -> list[AuditEntry]:
        """Return the newest operations, oldest first."""
        rows = await self._client.call("XREVRANGE", self._keys.audit, "+", "-", "COUNT", limit)
        return [_audit_entry(*row) for row in reversed(rows)]

    async def pending_announcements(self) -> dict[str, str]:
        """Return what the rest of the cluster has yet to be told: what it is about, and what to tell."""
        return _pairs(await self._client.call("HGETALL", self._keys.due))

    async def remove_announcement(self, field: str, what: str) -> None:
        """Note that everybody was told."""
        await self._client.run(scripts.SETTLED, self._dir, field, what)

    async def visible_channel(self, name: str, caller: Caller) -> str | None:
        """Return the id of a channel whose subscribers the caller may see."""
        reply = await self._client.run(scripts.WHO_MAY_LOOK, self._dir, name, caller.user, caller.role)
        return None if reply is None else _word(reply)

    async def _outcome(self, script: scripts.Script, *args: str | int) -> Outcome:
        verdict, announcements = await self._client.run(script, self._dir, *args)
        flat = _words(announcements)
        return Outcome(_word(verdict), dict(zip(flat[::2], flat[1::2], strict=True)))  # type: ignore[arg-type]

    async def _word(self, script: scripts.Script, *args: str | int) -> str:
        return _word(await self._client.run(script, self._dir, *args))

    async def _words(self, script: scripts.Script, *args: str | int) -> list[str]:
        return _words(await self._client.run(script, self._dir, *args))


def _invite(token: str, terms: str) -> InviteInfo:
    uses, expires = terms.split(" ")
    return InviteInfo(token, None if uses == "-" else int(uses), None if expires == "-" else rfc3339(int(expires)))


def _audit_entry(entry_id: bytes, fields: list[bytes] | dict[bytes, bytes]) -> AuditEntry:
    flat = fields if isinstance(fields, list) else [part for pair in fields.items() for part in pair]
    words = _words(flat)
    row = dict(zip(words[::2], words[1::2], strict=True))
    at = rfc3339(int(bytes(entry_id).partition(b"-")[0]))
    return AuditEntry(at, row["actor"], row["operation"], row["target"], row["outcome"])


def _or_dash(number: int | None) -> int | str:
    return "-" if number is None else number


def _word(reply: bytes) -> str:
    return bytes(reply).decode()


def _words(reply: list[bytes]) -> list[str]:
    return [bytes(word).decode() for word in reply]


def _pairs(reply: object) -> dict[str, str]:
    """Read a hash, which redis-py hands out as a dict."""
    assert isinstance(reply, dict)  # noqa: S101
    return {bytes(key).decode(): bytes(value).decode() for key, value in reply.items()}
