"""The nodes of the cluster: heartbeats, who is alive, and cleaning up after those who are not.

A node beats every two seconds. Others judge it by watching its heartbeat stand still while Redis answers, not by
comparing clocks, so an outage of Redis kills nobody. A node that was declared dead although it lived (it was stopped,
or starved) finds out with its next beat and joins again under a new name.
"""

import asyncio
import secrets
import time

import structlog

from conclave.model import SessionPath
from relay.redis import scripts
from relay.redis.client import RedisClient, Reply
from relay.redis.clock import RedisClock
from relay.redis.keys import Keys

log = structlog.get_logger()

BEAT_SECONDS = 2.0
DEAD_AFTER_SECONDS = 6.0
_SWEEP_SECONDS = 30


class NodeRegistry:
    """This node's entry and its view of the others. Every method raises StoreUnavailable."""

    def __init__(self, client: RedisClient, keys: Keys) -> None:
        self._client = client
        self._keys = keys
        self.node = new_node_id()
        """This node's name in the cluster."""
        self._joined = False
        self._heard: dict[str, tuple[float, float]] = {}
        self.size = 0
        """How many nodes there are, as of the last beat."""
        self.clock = RedisClock()

    @property
    def last_beat(self) -> float | None:
        """When the last heartbeat of this node was taken (ms, Redis' clock); None if that is not known."""
        heard = self._heard.get(self.node)
        return None if heard is None else heard[0]

    async def join(self) -> None:
        """Enter the cluster, under a new name if this node was in it before."""
        if self._joined:
            self.node = new_node_id()
        await self._ask(1)
        self._joined = True

    async def beat(self) -> bool:
        """Say that this node is alive and look at the others; False if it was declared dead meanwhile."""
        reply = await self._ask(0)
        if reply is None:
            return False
        _, flat = reply
        now = asyncio.get_running_loop().time()
        beats = {bytes(flat[i]).decode(): float(flat[i + 1]) for i in range(0, len(flat), 2)}
        self._heard = {
            node: (beat, self._heard[node][1] if node in self._heard and self._heard[node][0] == beat else now)
            for node, beat in beats.items()
        }
        return True

    async def _ask(self, join: int) -> Reply:
        asked = time.monotonic()
        reply = await self._client.run(scripts.BEAT, [self._keys.nodes], self.node, join)
        if reply is not None:
            self.clock.record(reply[0], asked, time.monotonic())
            self.size = len(reply[1]) // 2
        return reply

    def restart_timeouts(self) -> None:
        """Forget how long heartbeats have stood still: Redis was away, nobody could beat."""
        self._heard.clear()
        self.clock.forget()

    def dead(self) -> list[str]:
        """Return the nodes whose heartbeat has stood still for too long."""
        now = asyncio.get_running_loop().time()
        return [
            node
            for node, (beat, since) in self._heard.items()
            if node != self.node and (beat < 0 or now - since > DEAD_AFTER_SECONDS)
        ]

    async def alive(self) -> set[str]:
        """Return the nodes that beat within the last seconds, this one included."""
        reply = await self._client.run(scripts.ALIVE, [self._keys.nodes], int(DEAD_AFTER_SECONDS * 1000))
        return {bytes(node).decode() for node in reply} | {self.node}

    async def all_nodes(self) -> set[str]:
        """Return every node in the registry, alive or not."""
        return {bytes(node).decode() for node in await self._client.call("ZRANGE", self._keys.nodes, 0, -1)}

    async def leave(self) -> None:
        """Take this node out of the cluster; its sessions must be gone."""
        await self.remove(self.node)

    async def remove(self, node: str) -> None:
        """Remove a node's entry and its lists."""
        keys = (self._keys.sessions(node), self._keys.channels(node), self._keys.inbox(node))
        await self._client.call("DEL", *keys)
        await self._client.call("ZREM", self._keys.nodes, node)

    async def remove_dead(self, node: str) -> bool:
        """Remove a dead node and all that it left behind. False if it lives, or another node is at it.

        May be repeated at any point: what tells that there is something to do is removed last.
        """
        lock = self._keys.sweep(node)
        if not await self._client.call("SET", lock, self.node, "NX", "EX", _SWEEP_SECONDS):
            return False
        if not await self._client.run(scripts.EVICT, [self._keys.nodes], node, self._heard[node][0]):
            await self._client.call("DEL", lock)
            return False
        rows = await self._client.call("HGETALL", self._keys.sessions(node))
        await asyncio.gather(
            *(
                self._client.run(scripts.LEASE_BURY, [self._keys.lease(_path(path))], connection, node)
                for connection, path in rows.items()
            )
        )
        for channel_id in await self._client.call("SMEMBERS", self._keys.channels(node)):
            await self._forget_subscribers(bytes(channel_id).decode(), node)
        await self.remove(node)
        await self._client.call("DEL", lock)
        self._heard.pop(node, None)
        log.warning("node.buried", dead=node, sessions=len(rows))
        return True

    async def _forget_subscribers(self, channel_id: str, node: str) -> None:
        key = self._keys.subscribers(channel_id)
        rows = await self._client.call("HGETALL", key)
        await asyncio.gather(
            *(
                self._client.run(scripts.UNSET, [key], connection, value)
                for connection, value in rows.items()
                if bytes(value).partition(b" ")[0].decode() == node
            )
        )


def _path(text: bytes) -> SessionPath:
    return SessionPath(*bytes(text).decode().split("/"))


def new_node_id() -> str:
    return secrets.token_hex(6)
