"""The directory: who exists and who may do what. Every check and its action are one script."""

import asyncio
import secrets
from typing import Literal

from conclave.model import ChannelInfo, MachineInfo, Visibility
from relay.clock import rfc3339
from relay.redis import scripts
from relay.redis.client import RedisClient
from relay.redis.keys import Keys

Verdict = Literal["ok", "denied", "missing"]
"""`denied`: the caller may know of the channel but not do this; `missing`: it is absent, or hidden from the caller."""


class Caller:
    """Who asks, as far as the directory's rules are concerned."""

    __slots__ = ("admin", "user")

    def __init__(self, user: str, *, admin: bool) -> None:
        self.user = user
        self.admin = admin

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

    async def enroll(self, user: str, machine: str, pubkey: str) -> Literal["ok", "taken", "enrolled"]:
        """Claim a username together with its first machine, or neither."""
        return _word(await self._client.run(scripts.ENROLL, self._dir, user, machine, pubkey))  # type: ignore[return-value]

    async def add_machine(self, user: str, machine: str, pubkey: str) -> Literal["ok", "gone", "named", "enrolled"]:
        return _word(await self._client.run(scripts.MACHINE_ADD, self._dir, user, machine, pubkey))  # type: ignore[return-value]

    async def remove_machine(self, user: str, machine: str) -> bool:
        """Revoke a machine's key; False if there is no such machine."""
        return bool(await self._client.run(scripts.MACHINE_REMOVE, self._dir, user, machine))

    async def machines(self, user: str) -> list[MachineInfo]:
        rows = _pairs(await self._client.call("HGETALL", self._keys.machines(user)))
        machines = []
        for name, row in sorted(rows.items()):
            pubkey, _, added = row.partition(" ")
            machines.append(MachineInfo(name, pubkey, rfc3339(int(added))))
        return machines

    async def users(self) -> list[str]:
        return sorted(_words(await self._client.call("HKEYS", self._keys.users)))

    async def create_channel(self, name: str, visibility: Visibility, user: str) -> Literal["ok", "taken", "gone"]:
        channel_id = secrets.token_hex(8)
        reply = await self._client.run(scripts.CHANNEL_CREATE, self._dir, channel_id, name, visibility.value, user)
        return _word(reply)  # type: ignore[return-value]

    async def channels(self, caller: Caller) -> list[ChannelInfo]:
        """Return the channels that the caller may know of, by name."""
        flat = _words(await self._client.run(scripts.CHANNEL_LIST, self._dir, caller.user, caller.role))
        rows = zip(flat[::3], flat[1::3], flat[2::3], strict=True)
        return sorted(
            (ChannelInfo(name, Visibility(visibility), member == "1") for name, visibility, member in rows),
            key=lambda channel: channel.name,
        )

    async def join(self, name: str, user: str, token: str | None) -> tuple[Literal["ok", "private", "missing"], str]:
        """Decide on a join; a good invite makes the user a member in the same step. `ok` comes with the id."""
        reply = _words(await self._client.run(scripts.JOIN, self._dir, name, user, token or ""))
        return reply[0], reply[1] if len(reply) > 1 else ""  # type: ignore[return-value]

    async def add_member(self, name: str, caller: Caller, user: str, *, inside: bool) -> Verdict:
        """Make somebody a member and lift a ban on them."""
        args = (name, caller.user, caller.role, int(inside), user)
        return _word(await self._client.run(scripts.ACL_ADD, self._dir, *args))  # type: ignore[return-value]

    async def create_invite(
        self, name: str, caller: Caller, *, inside: bool, token: str, uses: int | None, seconds: int | None
    ) -> Verdict:
        args = (name, caller.user, caller.role, int(inside), token, _or_dash(uses), _or_dash(seconds))
        return _word(await self._client.run(scripts.INVITE_CREATE, self._dir, *args))  # type: ignore[return-value]

    async def visible_channel(self, name: str, caller: Caller) -> str | None:
        """Return the id of a channel whose subscribers the caller may see."""
        reply = await self._client.run(scripts.WHO_MAY_LOOK, self._dir, name, caller.user, caller.role)
        return None if reply is None else _word(reply)


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
