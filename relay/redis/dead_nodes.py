"""The removal of a dead node: its sessions' leases, its subscribers, its lists and its entry, in pieces."""

import asyncio

import structlog

from relay.redis import scripts
from relay.redis.batches import IN_FLIGHT, pieces
from relay.redis.connection import pairs
from relay.redis.directory import Directory
from relay.redis.keys import Keys
from relay.redis.leases import session_path
from relay.redis.node_registry import NodeRegistry
from relay.redis.scanning import scan, scan_subscribers
from relay.redis.store import Store

log = structlog.get_logger()

_LOCK_SECONDS = 30


class DeadNodes:
    """Removes what dead nodes left. Every method raises StoreUnavailable.

    What is done is taken off the dead node's lists, so that a removal that failed goes on where it stopped, on any
    node.
    """

    def __init__(self, client: Store, keys: Keys, registry: NodeRegistry, directory: Directory) -> None:
        self._client = client
        self._keys = keys
        self._registry = registry
        self._directory = directory

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
        removed = 0
        async for flat in scan(self._client, "HSCAN", listed):
            for rows in pieces(pairs(flat), IN_FLIGHT):
                await asyncio.gather(*(self._bury_lease(node, *row) for row in rows))
                await self._client.call("HDEL", listed, *(connection for connection, _ in rows))
                await self._client.call("EXPIRE", lock, _LOCK_SECONDS)
                removed += len(rows)
        return removed

    async def _bury_lease(self, node: str, connection: bytes, text: bytes) -> None:
        path = self._client.unreadable.read("sessions", session_path, text)
        if path is not None:
            await self._client.run(scripts.LEASE_BURY, [self._keys.lease(path)], connection, node)

    async def _remove_subscribers(self, node: str, lock: str) -> None:
        """Remove the subscribers that a node has listed in its channels."""
        listed = self._keys.channels(node)
        async for channel_ids in scan(self._client, "SSCAN", listed):
            for piece in pieces(channel_ids, IN_FLIGHT):
                names = [bytes(channel_id).decode() for channel_id in piece]
                await self._lose_joins(node, names)
                await scan_subscribers(self._client, self._keys, scripts.SUBSCRIBERS_BURY, node, names)
                await self._client.call("SREM", listed, *piece)
                await self._client.call("EXPIRE", lock, _LOCK_SECONDS)

    async def _lose_joins(self, node: str, channel_ids: list[str]) -> None:
        found = await scan_subscribers(self._client, self._keys, scripts.SUBSCRIBERS_OF, node, channel_ids)
        await self._directory.lose_joins(
            (path, connection, channel_id)
            for channel_id, texts in found.items()
            for connection, text in texts.items()
            if (path := self._client.unreadable.read("subscribers", session_path, text)) is not None
        )
