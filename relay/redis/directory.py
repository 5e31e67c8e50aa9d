"""The directory: users, channels and their permissions. Every check and its action are one script."""

import asyncio
import secrets
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import msgspec

from conclave.model import AuditEntry, InviteInfo, MachineInfo, SessionPath, Visibility
from relay.redis import scripts
from relay.redis.batches import NAMES, pieces
from relay.redis.connection import pairs
from relay.redis.keys import Keys
from relay.redis.store import Store
from relay.redis.timestamps import rfc3339

Verdict = Literal["ok", "denied", "missing", "taken", "revoked"]
"""`denied`: the caller may know of the channel but not do this; `missing`: it is absent, or hidden from the caller;
`taken`: another channel has the name; `revoked`: the caller's key was revoked, alone or with its user."""

_FINAL = frozenset({"revoked", "missing", "elsewhere"})
"""The answers that an empty directory gives, too."""

Registration = Literal["open", "closed", "invite"]
"""The right to register: everybody's, that of the admins whom the operator named, or that of users with an invite."""


EVERY_CHANNEL = "*"
"""Stands for the ids of all channels that a session may be noted in."""


class Outcome(msgspec.Struct, frozen=True):
    """The verdict on an operation, and what has to be announced before it is acknowledged, by subject.

    That is what is pending about the subjects of the operation, and everything that is pending if the operation found
    nothing to do: a caller may be repeating one whose first attempt ended before its announcement.
    """

    verdict: Verdict
    announcements: dict[str, str]


class JoinDecision(msgspec.Struct, frozen=True):
    """The decision on a join: `ok` with the channel's id and the membership version, or a refusal."""

    verdict: Literal["ok", "private", "missing", "revoked"]
    channel_id: str = ""
    version: int = 0
    admin: bool = False
    """True if the caller may administer the channel."""


class Listing(msgspec.Struct, frozen=True):
    """A channel as one user sees it."""

    channel_id: str
    name: str
    visibility: Visibility
    member: bool
    admin: bool


class Caller(msgspec.Struct, frozen=True):
    """The session that makes a request, for permissions and the audit trail."""

    path: str
    pubkey: str
    user: str
    admin: bool

    @property
    def role(self) -> str:
        return "admin" if self.admin else "user"


class Directory:
    """Users, machine keys, channels, members, invites. Every method raises StoreUnavailable."""

    def __init__(self, client: Store, keys: Keys) -> None:
        self._client = client
        self._keys = keys
        self._dir = (keys.directory, keys.cluster)

    async def cluster_id(self) -> str | None:
        """Return the id of the cluster: 24 random bytes as base64url, chosen by its first node.

        None if there are users without an id: it was lost.
        """
        stored = await self._client.run(scripts.CLUSTER, self._dir, secrets.token_urlsafe(24))
        return None if stored is None else _text(stored)

    async def owner_of(self, pubkey: str) -> tuple[str, str] | None:
        """Return the user and the machine for which a public key is enrolled, or None."""
        found = await self._client.call("HGET", self._keys.machine_keys, pubkey)
        if found is None:
            await self._client.confirm_cluster()
            return None
        user, _, machine = bytes(found).decode().partition("/")
        return user, machine

    async def enroll(
        self, user: str, machine: str, pubkey: str, *, policy: Registration, invite: str
    ) -> Literal["ok", "taken", "enrolled", "closed", "uninvited"]:
        """Claim a username together with its first machine, or neither."""
        args = (user, machine, pubkey, policy, invite, self._client.cluster_id)
        return await self._text(scripts.ENROLL, *args)  # type: ignore[return-value]

    async def create_server_invite(self, caller: Caller, token: str, uses: int | None, seconds: int | None) -> Verdict:
        args = (caller.path, caller.pubkey, caller.role, token, _or_dash(uses), _or_dash(seconds))
        return await self._text(scripts.SERVER_INVITE, *args)  # type: ignore[return-value]

    async def add_machine(
        self, caller: Caller, machine: str, pubkey: str
    ) -> Literal["ok", "revoked", "named", "enrolled"]:
        args = (caller.path, caller.pubkey, caller.user, machine, pubkey)
        return await self._text(scripts.MACHINE_ADD, *args)  # type: ignore[return-value]

    async def remove_machine(self, caller: Caller, user: str, machine: str) -> Outcome:
        """Revoke the key of a machine; `ok` also if there is no such machine."""
        args = (caller.path, caller.pubkey, caller.user, caller.role, user, machine)
        return await self._outcome(scripts.MACHINE_REMOVE, *args)

    async def remove_user(self, caller: Caller, user: str) -> Outcome:
        """Remove a user with machines, channels and memberships, in one step; `ok` also if there is no such user."""
        args = (caller.path, caller.pubkey, caller.role, user)
        return await self._outcome(scripts.USER_REMOVE, *args)

    async def machines(self, user: str) -> list[MachineInfo]:
        """Return the machines of a user, by name."""
        rows = _hash(await self._client.call("HGETALL", self._keys.machines(user)))
        machines = []
        for name, row in sorted(rows.items()):
            pubkey, _, added = row.partition(" ")
            machines.append(MachineInfo(name, pubkey, rfc3339(int(added))))
        return machines

    async def users(self) -> list[str]:
        """Return every username, sorted."""
        return sorted(_texts(await self._client.call("HKEYS", self._keys.users)))

    async def acquaintances(self, user: str) -> set[str]:
        """Return the users with whom this user is a member of some channel, the user included."""
        return set(await self._texts(scripts.ACQUAINTANCES, user))

    async def create_channel(
        self, caller: Caller, name: str, visibility: Visibility
    ) -> Literal["ok", "taken", "revoked"]:
        args = (caller.path, caller.pubkey, secrets.token_hex(8), name, visibility.value, caller.user)
        return await self._text(scripts.CHANNEL_CREATE, *args)  # type: ignore[return-value]

    async def channels(self, caller: Caller) -> list[Listing]:
        """Return the channels that the caller may know of, by name."""
        flat = _texts(await self._client.run(scripts.CHANNEL_LIST, self._dir, caller.user, caller.role))
        rows = zip(flat[::5], flat[1::5], flat[2::5], flat[3::5], flat[4::5], strict=True)
        return sorted(
            (
                Listing(found, name, Visibility(seen), member == "1", admin == "1")
                for found, name, seen, member, admin in rows
            ),
            key=lambda channel: channel.name,
        )

    async def join(self, name: str, caller: Caller, connection: str, token: str | None) -> JoinDecision:
        """Decide on a join, and note it. A valid invite makes the user a member in the same step.

        The note stays until `forget_joins`: it tells what to review when the user or the machine is removed.
        """
        args = (name, caller.path, caller.pubkey, caller.user, caller.role, token or "", connection)
        verdict, *more = await self._texts(scripts.JOIN, *args)
        if not more:
            return JoinDecision(verdict)  # type: ignore[arg-type]
        return JoinDecision("ok", more[0], int(more[1]), more[2] == "1")

    def forget_joins(self, path: SessionPath, connection: str, channel_ids: Iterable[str]) -> asyncio.Future[Any]:
        """Remove the notes that a session is in these channels, or in any (`EVERY_CHANNEL`).

        Raises, in the future: StoreUnavailable.
        """
        return self._client.run(scripts.PRESENCE_DROP, self._dir, path.user, path.machine, connection, *channel_ids)

    async def keep_joins(self, joins: Iterable[tuple[SessionPath, str, str]]) -> None:
        """Note again that sessions are in channels: each a path, a connection and the id of a channel."""
        await self._note(scripts.PRESENCE_KEEP, joins)

    async def lose_joins(self, joins: Iterable[tuple[SessionPath, str, str]]) -> None:
        """Note that these sessions have probably ended with their node."""
        await self._note(scripts.PRESENCE_LOSE, joins)

    async def _note(self, script: scripts.Script, joins: Iterable[tuple[SessionPath, str, str]]) -> None:
        for piece in pieces(joins, NAMES):
            rows = (part for path, *rest in piece for part in (path.user, path.machine, *rest))
            await self._client.run(script, self._dir, *rows)

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
        return await self._text(scripts.INVITE_REVOKE, *args)  # type: ignore[return-value]

    async def inspect(self, operation: str, name: str, caller: Caller, *, inside: str) -> tuple[Verdict, list[str]]:
        """Return the members (`acl_list`) or the banned users (`ban_list`) of a channel, sorted, to its admins."""
        args = (operation, name, caller.path, caller.pubkey, caller.user, caller.role, inside)
        verdict, *rows = await self._texts(scripts.INSPECT, *args)
        return verdict, sorted(rows)  # type: ignore[return-value]

    async def invites(self, name: str, caller: Caller, *, inside: str) -> tuple[Verdict, list[InviteInfo]]:
        """Return the outstanding invites of a channel, by token, to its admins."""
        args = ("invite_list", name, caller.path, caller.pubkey, caller.user, caller.role, inside)
        verdict, *flat = await self._texts(scripts.INSPECT, *args)
        rows = zip(flat[::2], flat[1::2], strict=True)
        return verdict, sorted((_invite(*row) for row in rows), key=lambda invite: invite.token)  # type: ignore[return-value]

    async def id_of(self, name: str) -> str | None:
        """Return the id of the channel with this name, also of one that is hidden; None if there is none."""
        found = await self._client.call("HGET", self._keys.names, name)
        return None if found is None else _text(found)

    async def review(
        self, channel_id: str, sessions: Sequence[tuple[str, str, int]]
    ) -> tuple[str, int, list[str]] | None:
        """Decide whether sessions in a channel may stay: each a path, a public key, and the version at which it joined.

        Returns the name of the channel, the version of the decision, and for each session the reason for which it has
        to leave, or ''; None if the channel was deleted.
        """
        flat = [part for session in sessions for part in session]
        answer = await self._texts(scripts.REVIEW, channel_id, *flat)
        return (answer[0], int(answer[1]), answer[2:]) if answer else None

    async def audit(self, limit: int) -> list[AuditEntry]:
        """Return the newest operations, oldest first."""
        rows = await self._client.call("XREVRANGE", self._keys.audit, "+", "-", "COUNT", limit)
        return [_audit_entry(*row) for row in reversed(rows)]

    async def pending_announcements(self) -> dict[str, str]:
        """Return the announcements that were not made, or not removed: subject -> announcement."""
        return _hash(await self._client.call("HGETALL", self._keys.due))

    def remove_announcements(self, announcements: Iterable[tuple[str, str]]) -> asyncio.Future[Any]:
        """Remove up to some hundred announcements that were made.

        A later one about the same subject stays. Raises, in the future: StoreUnavailable.
        """
        return self._client.run(scripts.SETTLED, self._dir, *(part for each in announcements for part in each))

    async def visible_channel(self, name: str, caller: Caller) -> str | None:
        """Return the id of a channel whose subscribers the caller may see; None if there is no such channel."""
        reply = await self._client.run(scripts.WHO_MAY_LOOK, self._dir, name, caller.user, caller.role)
        return None if reply is None else _text(reply)

    async def _outcome(self, script: scripts.Script, *args: str | int) -> Outcome:
        verdict, announcements = await self._client.run(script, self._dir, *args)
        await self._confirm(_text(verdict))
        return Outcome(_text(verdict), _hash(announcements))  # type: ignore[arg-type]

    async def _text(self, script: scripts.Script, *args: str | int) -> str:
        text = _text(await self._client.run(script, self._dir, *args))
        await self._confirm(text)
        return text

    async def _texts(self, script: scripts.Script, *args: str | int) -> list[str]:
        texts = _texts(await self._client.run(script, self._dir, *args))
        await self._confirm(*texts)
        return texts

    async def _confirm(self, *answer: str) -> None:
        """Check that it is this cluster's directory which does not know a key or a channel.

        An answer is final for a client, and one that Redis gives after it was emptied must not be.
        Raises: StoreUnavailable.
        """
        if not answer or not _FINAL.isdisjoint(answer):
            await self._client.confirm_cluster()


def _invite(token: str, terms: str) -> InviteInfo:
    uses, expires = terms.split(" ")
    return InviteInfo(token, None if uses == "-" else int(uses), None if expires == "-" else rfc3339(int(expires)))


def _audit_entry(entry_id: bytes, fields: list[bytes]) -> AuditEntry:
    row = _hash(fields)
    at = rfc3339(int(bytes(entry_id).partition(b"-")[0]))
    return AuditEntry(at, row["actor"], row["operation"], row["target"], row["outcome"])


def _or_dash(number: int | None) -> int | str:
    return "-" if number is None else number


def _text(reply: bytes) -> str:
    return bytes(reply).decode()


def _texts(reply: list[bytes]) -> list[str]:
    return [bytes(each).decode() for each in reply]


def _hash(reply: list[bytes]) -> dict[str, str]:
    return dict(pairs(_texts(reply)))
