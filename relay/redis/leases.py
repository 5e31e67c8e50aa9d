"""Leases: the connection, and its node, that holds a session path.

Taking a lease is one script. It assigns a generation greater than all earlier ones and returns the earlier holders,
whose nodes the taker signals. An earlier holder stays in the lease until its connection has ended, so if the taker dies
before it has sent the signals, the next taker sends them. Of any number of racing logins the one with the greatest
generation survives.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import Literal

import msgspec

from conclave.model import SessionPath
from relay.redis import scripts
from relay.redis.connection import Reply, pairs
from relay.redis.keys import Keys
from relay.redis.scanning import scan
from relay.redis.store import Store
from relay.redis.unreadable import Unreadable


class Holder(msgspec.Struct, frozen=True):
    """A connection that holds, or held, a session path."""

    connection: str
    node: str
    generation: int


class Claim(msgspec.Struct, frozen=True):
    """The claim of a session to its path, with the generation that it was given."""

    connection: str
    path: SessionPath
    pubkey: str
    generation: int


class Leases:
    """The leases, and the list of sessions of each node. Every method raises StoreUnavailable."""

    def __init__(self, client: Store, keys: Keys) -> None:
        self._client = client
        self._keys = keys

    async def take(
        self, path: SessionPath, pubkey: str, *, node: str, connection: str
    ) -> tuple[int, list[Holder], bool]:
        """Take a path and list the session as present.

        Returns the generation, the earlier holders, and whether `pubkey` was still enrolled after the lease was taken.
        A revocation after that finds the session in the lists.
        """
        (generation, rows), _, owner = await asyncio.gather(
            self._client.run(scripts.LEASE_TAKE, [self._keys.lease(path)], connection, node),
            self._client.call("HSET", self._keys.sessions(node), connection, str(path)),
            self._client.call("HGET", self._keys.machine_keys, pubkey),
        )
        (enrolled,) = await self._enrolled([(owner, path)])
        return int(generation), holders_in(rows, self._client.unreadable), enrolled

    async def reassert(self, node: str, claims: Sequence[Claim]) -> list[Literal["kept", "superseded", "revoked"]]:
        """Write again that connections hold their paths, and list their sessions at a node.

        A path that was taken meanwhile, or whose key was revoked, is not kept. Several hundred claims are one turn.
        """
        rows = [part for claim in claims for part in (claim.connection, str(claim.path))]
        kept, _, owners = await asyncio.gather(
            asyncio.gather(*(self._keep(node, claim) for claim in claims)),
            self._client.call("HSET", self._keys.sessions(node), *rows),
            self._client.call("HMGET", self._keys.machine_keys, *(claim.pubkey for claim in claims)),
        )
        owned = await self._enrolled((owner, claim.path) for owner, claim in zip(owners, claims, strict=True))
        return [
            "revoked" if not owns else "kept" if keeps else "superseded"
            for owns, keeps in zip(owned, kept, strict=True)
        ]

    async def _enrolled(self, keys: Iterable[tuple[bytes | None, SessionPath]]) -> list[bool]:
        """Tell for each owner of a key whether it is this path's machine. That one is not is confirmed first.

        Raises: StoreUnavailable, also if Redis does not hold this cluster any more.
        """
        owned = [_owns(owner, path) for owner, path in keys]
        if not all(owned):
            await self._client.confirm_cluster()
        return owned

    def _keep(self, node: str, claim: Claim) -> "asyncio.Future[Reply]":
        return self._client.run(
            scripts.LEASE_KEEP, [self._keys.lease(claim.path)], claim.connection, node, claim.generation
        )

    async def superseded(self, claims: Sequence[Claim]) -> list[bool]:
        """Tell for each claim whether a later connection has taken the path."""
        leases = await asyncio.gather(*(self._client.call("HGETALL", self._keys.lease(claim.path)) for claim in claims))
        holders = [holders_in(lease, self._client.unreadable) for lease in leases]
        return [is_superseded(each, claim.generation) for each, claim in zip(holders, claims, strict=True)]

    async def release(self, node: str, sessions: Mapping[str, SessionPath]) -> None:
        """Give the paths of connections up, and take their sessions out of the list of their node."""
        await asyncio.gather(
            *(self._client.call("HDEL", self._keys.lease(path), each) for each, path in sessions.items()),
            self._client.call("HDEL", self._keys.sessions(node), *sessions),
        )

    async def holders(self, path: SessionPath) -> list[Holder]:
        """Return the holder of a path and the earlier ones that have not ended, in no particular order."""
        return holders_in(await self._client.call("HGETALL", self._keys.lease(path)), self._client.unreadable)

    async def node_sessions(self, node: str) -> AsyncIterator[dict[str, SessionPath]]:
        """Yield the sessions in the list of a node, each path by its connection, in pieces."""
        async for flat in scan(self._client, "HSCAN", self._keys.sessions(node)):
            paths = ((each, self._client.unreadable.read("sessions", session_path, path)) for each, path in pairs(flat))
            yield {bytes(connection).decode(): path for connection, path in paths if path is not None}

    async def sessions(self, nodes: set[str]) -> list[str]:
        """Return the paths of all sessions on these nodes, each once, sorted."""
        lists = await asyncio.gather(*(self._client.call("HVALS", self._keys.sessions(node)) for node in nodes))
        values = (path for paths in lists for path in paths)
        return sorted({str(path) for path in self._client.unreadable.read_all("sessions", session_path, values)})


def session_path(value: bytes) -> SessionPath:
    """Read a path in a list of sessions. Raises ValueError or TypeError if it is none."""
    return SessionPath(*bytes(value).partition(b"\0")[0].decode().split("/"))


def holders_in(lease: list[bytes], unreadable: Unreadable) -> list[Holder]:
    """Read a lease as Redis sends it, without the holders that cannot be read."""
    return unreadable.read_all("lease", _holder, pairs(lease))


def latest(holders: list[Holder], alive: set[str]) -> Holder | None:
    """Return the holder of a path, among the nodes that are alive; None if there is none."""
    living = (holder for holder in holders if holder.node in alive)
    return max(living, key=lambda holder: holder.generation, default=None)


def is_superseded(holders: list[Holder], generation: int) -> bool:
    """Tell whether a path has a holder with a later generation."""
    return any(holder.generation > generation for holder in holders)


def _owns(owner: bytes | None, path: SessionPath) -> bool:
    """Tell whether a key belongs to the machine of this path. A revoked key may have been enrolled elsewhere since."""
    return owner is not None and bytes(owner).decode() == f"{path.user}/{path.machine}"


def _holder(row: tuple[bytes, bytes]) -> Holder:
    connection, value = row
    generation, node, *_ = bytes(value).decode().split(" ")
    return Holder(bytes(connection).decode(), node, int(generation))
