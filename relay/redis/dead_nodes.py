"""The removal of a dead node: its sessions' leases, its subscribers, its lists and its entry, in pieces."""

import asyncio

import structlog

from conclave.model import SessionPath
from relay.redis import scripts
from relay.redis.batches import IN_FLIGHT, NAMES, for_each, pieces
from relay.redis.connection import Reply, pairs
from relay.redis.keys import Keys
from relay.redis.leases import session_path
from relay.redis.node_registry import NodeRegistry
from relay.redis.store import Store

log = structlog.get_logger()

_LOCK_SECONDS = 30


class DeadNodes:
    """Removes what dead nodes left. Every method raises StoreUnavailable.

    What is done is taken off the dead node's lists, so that a removal that failed goes on where it stopped, on any
    node.
    """

    def __init__(self, client: Store, keys: Keys, registry: NodeRegistry) -> None:
        self._client = client
        self._keys = keys
        self._registry = registry

    async def remove(self, node: str, beat: float) -> bool:
        """Remove a node whose last heartbeat was `beat`. False if it lives, or another node is removing it.

        The removal may fail at any point and be repeated: the entry that shows that there is something to remove is
        deleted last.
        """
        lock = self._keys.sweep(node)
        if not await self._client.call("SET", lock, self._registry.node, "NX", "EX", _LOCK_SECONDS):
            return False
        if not await self._client.run(scripts.EVICT, [self._keys.nodes], node, beat):
            await self._client.call("DEL", lock)
            return False
        # The node may live. While a session is listed it may post, so nobody takes its path as a free one before that.
        await self._remove_subscribers(node, lock)
        sessions = await self._remove_leases(node, lock)
        await self._registry.remove(node)
        await self._client.call("DEL", lock)
        log.warning("node.buried", dead=node, sessions=sessions)
        return True

    async def _remove_leases(self, node: str, lock: str) -> int:
        """Remove the leases of a node's sessions, and return how many there were."""
        listed = self._keys.sessions(node)
        removed, cursor = 0, b"0"
        while True:
            cursor, flat = await self._client.call("HSCAN", listed, cursor, "COUNT", NAMES)
            rows = pairs(flat)
            paths = [
                (connection, self._client.unreadable.read("sessions", session_path, path)) for connection, path in rows
            ]
            known = [(connection, path) for connection, path in paths if path is not None]
            await for_each(known, lambda row: self._bury_lease(node, *row))
            for piece in pieces(rows, NAMES):
                await self._client.call("HDEL", listed, *(connection for connection, _ in piece))
            removed += len(rows)
            await self._client.call("EXPIRE", lock, _LOCK_SECONDS)
            if int(cursor) == 0:
                return removed

    def _bury_lease(self, node: str, connection: bytes, path: SessionPath) -> "asyncio.Future[Reply]":
        return self._client.run(scripts.LEASE_BURY, [self._keys.lease(path)], connection, node)

    async def _remove_subscribers(self, node: str, lock: str) -> None:
        """Remove the subscribers that a node has listed in its channels."""
        listed, cursor = self._keys.channels(node), b"0"
        while True:
            cursor, ids = await self._client.call("SSCAN", listed, cursor, "COUNT", NAMES)
            for piece in pieces(ids, IN_FLIGHT):
                await self._bury_subscribers(node, piece)
                await self._client.call("SREM", listed, *piece)
                await self._client.call("EXPIRE", lock, _LOCK_SECONDS)
            if int(cursor) == 0:
                return

    async def _bury_subscribers(self, node: str, channel_ids: list[bytes]) -> None:
        lists = [self._keys.subscribers(bytes(channel_id).decode()) for channel_id in channel_ids]
        cursors: dict[str, bytes] = dict.fromkeys(lists, b"0")
        while cursors:
            replies = await asyncio.gather(
                *(
                    self._client.run(scripts.SUBSCRIBERS_BURY, [key], node, cursor, NAMES)
                    for key, cursor in cursors.items()
                )
            )
            cursors = {key: cursor for key, cursor in zip(cursors, replies, strict=True) if int(cursor) != 0}
