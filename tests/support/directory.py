"""The content of the directory, read from Redis, with a check of its consistency."""

from typing import Any

import msgspec
from redis import Redis

from relay.redis.keys import Keys

DIR = Keys("conclave").directory


class ChannelState(msgspec.Struct, frozen=True):
    """A channel as the directory describes it. `invites` has the rest of each: `uses expires`, sorted."""

    creator: str
    visibility: str
    members: frozenset[str]
    admins: frozenset[str] = frozenset()
    bans: frozenset[str] = frozenset()
    invites: tuple[str, ...] = ()


class Snapshot(msgspec.Struct, frozen=True):
    """Everything that an operation can change, without ids, keys, tokens and times."""

    channels: dict[str, ChannelState]
    machines: dict[str, frozenset[str]]
    """Of each user."""
    server_invites: tuple[str, ...]


class Store:
    """A directory of the tests' default prefix. Every read checks what must always be true of it."""

    def __init__(self, redis_url: str) -> None:
        self._redis: Any = Redis.from_url(redis_url, decode_responses=True)

    def close(self) -> None:
        self._redis.close()

    def snapshot(self) -> Snapshot:
        """Return what the directory holds; AssertionError if an index disagrees with what it is an index of."""
        names = self._hash("names")
        channels = {name: self._channel(channel_id, name) for name, channel_id in names.items()}
        self._check_reverse("acl", "member", names)
        self._check_reverse("admins", "administers", names)
        self._check_reverse("bans", "banned", names)
        self._check_listings(names)
        return Snapshot(channels, self._machines(), tuple(sorted(self._hash("server-invites").values())))

    def pending(self) -> dict[str, str]:
        """Return the pending announcements."""
        return self._hash("due")

    def id_of(self, name: str) -> str:
        channel_id = self._redis.hget(f"{DIR}:names", name)
        assert isinstance(channel_id, str), f"no channel `{name}`"
        return channel_id

    def announced(self, channel_id: str) -> bool:
        """Tell if the channel's messages carry the directory's version, or the channel is marked as deleted."""
        head: dict[str, str] = self._redis.hgetall(f"conclave:{{c:{channel_id}}}:head")
        version = self.version(channel_id)
        return "gone" in head if version is None else head.get("version", "0") == version

    def version(self, channel_id: str) -> str | None:
        """Return the membership version of a channel; None if there is no such channel."""
        found: str | None = self._redis.hget(f"{DIR}:channel:{channel_id}", "version")
        return found

    def audit(self) -> list[dict[str, str]]:
        """Return the whole trail, oldest first."""
        return [fields for _, fields in self._redis.xrange(f"{DIR}:audit")]

    def _hash(self, part: str) -> dict[str, str]:
        found: dict[str, str] = self._redis.hgetall(f"{DIR}:{part}")
        return found

    def _set(self, part: str) -> frozenset[str]:
        return frozenset(self._redis.smembers(f"{DIR}:{part}"))

    def _channel(self, channel_id: str, name: str) -> ChannelState:
        row = self._hash(f"channel:{channel_id}")
        assert row["name"] == name, f"`{name}` leads to a channel that is called `{row['name']}`"
        return ChannelState(
            creator=row["creator"],
            visibility=row["visibility"],
            members=self._set(f"acl:{channel_id}"),
            admins=self._set(f"admins:{channel_id}"),
            bans=self._set(f"bans:{channel_id}"),
            invites=tuple(sorted(self._hash(f"invites:{channel_id}").values())),
        )

    def _machines(self) -> dict[str, frozenset[str]]:
        keys = self._hash("keys")
        machines: dict[str, frozenset[str]] = {}
        for user in self._hash("users"):
            rows = self._hash(f"machines:{user}")
            machines[user] = frozenset(rows)
            for machine, row in rows.items():
                assert keys.pop(row.split(" ")[0], None) == f"{user}/{machine}", "a machine without its key"
        assert keys == {}, "keys without their machines"
        assert {key.rpartition(":")[2] for key in self._keys("machines")} <= set(machines), (
            "machines without their user"
        )
        return machines

    def _check_reverse(self, of_channel: str, of_user: str, names: dict[str, str]) -> None:
        forward = {
            (key.rpartition(":")[2], user)
            for key in self._keys(of_channel)
            for user in self._set(f"{of_channel}:{key.rpartition(':')[2]}")
        }
        backward = {
            (channel_id, key.rpartition(":")[2])
            for key in self._keys(of_user)
            for channel_id in self._set(f"{of_user}:{key.rpartition(':')[2]}")
        }
        assert forward == backward, f"{of_channel} and {of_user} disagree"
        assert {channel_id for channel_id, _ in forward} <= set(names.values()), (
            f"{of_channel} of a channel that is gone"
        )

    def _check_listings(self, names: dict[str, str]) -> None:
        ids = set(names.values())
        rows = {channel_id: self._hash(f"channel:{channel_id}") for channel_id in ids}
        assert self._ids("channel") == ids, "a channel without a name"
        assert self._set("listed") == {i for i, row in rows.items() if row["visibility"] == "public"}
        created = {(i, key.rpartition(":")[2]) for key in self._keys("created") for i in self._redis.smembers(key)}
        assert created == {(i, row["creator"]) for i, row in rows.items()}
        tokens = {(token, i) for i in self._ids("invites") for token in self._hash(f"invites:{i}")}
        assert tokens == set(self._hash("tokens").items()), "tokens disagree"
        assert self._ids("removed") <= ids, "removals of a channel that is gone"

    def _ids(self, part: str) -> set[str]:
        return {key.rpartition(":")[2] for key in self._keys(part)}

    def _keys(self, part: str) -> list[str]:
        found: list[str] = self._redis.keys(f"{DIR}:{part}:*")
        return found
