"""The registry of nodes: heartbeats, the nodes that are alive, and the removal of dead ones.

A node sends a heartbeat every two seconds. The others declare it dead when its heartbeat stands still while Redis
answers; no clocks are compared, so an outage of Redis declares no node dead. A node that was declared dead by mistake
(it was stopped, or starved) learns that from its next heartbeat and joins again under a new name.
"""

import asyncio
import time

import structlog

from conclave.model import SessionPath
from relay.redis import scripts
from relay.redis.client import RedisClient
from relay.redis.clock import RedisClock
from relay.redis.connection import Reply, pairs
from relay.redis.keys import Keys
from relay.redis.node_names import new_node_name

log = structlog.get_logger()

BEAT_SECONDS = 2.0
DEAD_AFTER_SECONDS = 6.0
_REMOVAL_LOCK_SECONDS = 30


class NodeRegistry:
    """This node's entry, and its view of the other nodes. Every method raises StoreUnavailable."""

    def __init__(self, client: RedisClient, keys: Keys) -> None:
        self._client = client
        self._keys = keys
        self.node = new_node_name()
        """The name of this node in the cluster."""
        self._joined = False
        self._beats: dict[str, tuple[float, float]] = {}
        """Node -> its last heartbeat (ms, Redis' clock; negative if it was declared dead), and when this node first
        saw that one (seconds of the event loop's clock)."""
        self.size = 0
        """The number of nodes as of the last heartbeat."""
        self.clock = RedisClock()

    @property
    def last_beat(self) -> float | None:
        """The time of this node's last heartbeat (ms, Redis' clock); None if that is not known."""
        seen = self._beats.get(self.node)
        return None if seen is None else seen[0]

    async def join(self) -> str | None:
        """Join the cluster; a node that was in it before gets a new name. Returns the former name."""
        former = self.node if self._joined else None
        if former is not None:
            self.node = new_node_name()
        await self._beat(join=True)
        self._joined = True
        return former

    async def beat(self) -> bool:
        """Send a heartbeat and read those of all nodes. False if this node was declared dead meanwhile."""
        reply = await self._beat(join=False)
        if reply is None:
            return False
        _, flat = reply
        now = asyncio.get_running_loop().time()
        beats = {bytes(node).decode(): float(beat) for node, beat in pairs(flat)}
        self._beats = {
            node: (beat, self._beats[node][1] if node in self._beats and self._beats[node][0] == beat else now)
            for node, beat in beats.items()
        }
        return True

    async def _beat(self, *, join: bool) -> Reply:
        asked = time.monotonic()
        reply = await self._client.run(scripts.BEAT, [self._keys.nodes], self.node, int(join))
        if reply is not None:
            self.clock.record(reply[0], asked, time.monotonic())
            self.size = len(reply[1]) // 2
        return reply

    def restart_timeouts(self) -> None:
        """Forget for how long heartbeats have stood still: Redis was away, and no node could send one."""
        self._beats.clear()
        self.clock.forget()

    def dead(self) -> list[str]:
        """Return the nodes whose heartbeat has stood still for six seconds, or that were declared dead."""
        now = asyncio.get_running_loop().time()
        return [
            node
            for node, (beat, since) in self._beats.items()
            if node != self.node and (beat < 0 or now - since > DEAD_AFTER_SECONDS)
        ]

    async def is_evicted(self) -> bool:
        """Return whether this node was declared dead, which its next heartbeat will notice."""
        beat = await self._client.call("ZSCORE", self._keys.nodes, self.node)
        return beat is None or float(beat) < 0

    async def alive(self) -> set[str]:
        """Return the nodes that sent a heartbeat in the last six seconds, and this one."""
        reply = await self._client.run(scripts.ALIVE, [self._keys.nodes], int(DEAD_AFTER_SECONDS * 1000))
        return {bytes(node).decode() for node in reply} | {self.node}

    async def all_nodes(self) -> set[str]:
        """Return every node in the registry, alive or not."""
        return {bytes(node).decode() for node in await self._client.call("ZRANGE", self._keys.nodes, 0, -1)}

    async def leave(self) -> None:
        """Take this node, which has no sessions any more, out of the cluster."""
        await self.remove(self.node)

    async def remove(self, node: str) -> None:
        """Remove a node's entry and its lists. An inbox in which there is something stays until it expires."""
        await self._client.call("DEL", self._keys.sessions(node), self._keys.channels(node))
        await self._client.run(scripts.INBOX_DROP, [self._keys.inbox(node)])
        await self._client.call("ZREM", self._keys.nodes, node)

    async def remove_dead(self, node: str) -> bool:
        """Remove a dead node with its sessions and subscribers. False if it lives, or another node is removing it.

        The removal may fail at any point and be repeated: the entry that shows that there is something to remove is
        deleted last.
        """
        lock = self._keys.sweep(node)
        if not await self._client.call("SET", lock, self.node, "NX", "EX", _REMOVAL_LOCK_SECONDS):
            return False
        if not await self._client.run(scripts.EVICT, [self._keys.nodes], node, self._beats[node][0]):
            await self._client.call("DEL", lock)
            return False
        rows = pairs(await self._client.call("HGETALL", self._keys.sessions(node)))
        await asyncio.gather(
            *(
                self._client.run(scripts.LEASE_BURY, [self._keys.lease(_path(path))], connection, node)
                for connection, path in rows
            )
        )
        for channel_id in await self._client.call("SMEMBERS", self._keys.channels(node)):
            await self._remove_subscribers(bytes(channel_id).decode(), node)
        await self.remove(node)
        await self._client.call("DEL", lock)
        self._beats.pop(node, None)
        log.warning("node.buried", dead=node, sessions=len(rows))
        return True

    async def _remove_subscribers(self, channel_id: str, node: str) -> None:
        key = self._keys.subscribers(channel_id)
        rows = pairs(await self._client.call("HGETALL", key))
        await asyncio.gather(
            *(
                self._client.run(scripts.UNSET, [key], connection, value)
                for connection, value in rows
                if bytes(value).partition(b" ")[0].decode() == node
            )
        )


def _path(text: bytes) -> SessionPath:
    return SessionPath(*bytes(text).decode().split("/"))
