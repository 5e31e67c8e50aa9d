"""The registry of nodes: heartbeats, and the nodes that are alive.

A node sends a heartbeat every two seconds. The others declare it dead when its heartbeat stands still while their own
are accepted; no clocks are compared, so an outage of Redis declares no node dead. A node that was declared dead by
mistake (it was stopped, or starved) learns that from its next heartbeat and joins again under a new name.
"""

import asyncio
import time

import msgspec

from relay.model.errors import StoreRefused
from relay.redis import scripts
from relay.redis.clock import RedisClock
from relay.redis.connection import Reply, pairs
from relay.redis.keys import Keys
from relay.redis.node_names import new_node_name
from relay.redis.store import Store

BEAT_SECONDS = 2.0
DEAD_AFTER_SECONDS = 6.0
_LONGEST_GAP_SECONDS = 2 * BEAT_SECONDS
"""A longer time without an accepted heartbeat of one's own says nothing about the heartbeats of others."""
_TOLERANCE_SECONDS = 0.1
"""Three intervals between heartbeats are six seconds, more or less."""
_LATE_SECONDS = 2.5 * BEAT_SECONDS
"""The time after which a node without an accepted heartbeat takes no new sessions."""


class _Seen(msgspec.Struct, frozen=True):
    """The last heartbeat of a node: ms of Redis' clock, negative if the node was declared dead.

    `still_for` is the time for which it has been the same, in seconds, without gaps of the observer.
    """

    beat: float
    still_for: float = 0.0

    def next(self, beat: float, seconds: float) -> "_Seen":
        """Return what is seen `seconds` later."""
        return _Seen(beat, self.still_for + seconds) if beat == self.beat else _Seen(beat)


class NodeRegistry:
    """This node's entry, and its view of the other nodes. Every method raises StoreUnavailable."""

    def __init__(self, client: Store, keys: Keys) -> None:
        self._client = client
        self._keys = keys
        self.node = new_node_name()
        """The name of this node in the cluster."""
        self._nodes: dict[str, _Seen] = {}
        self._seen_at: float | None = None
        """The time of the last accepted heartbeat, by the event loop's clock; None if Redis was away since."""
        self._accepted_at: float | None = None
        """The time of the last accepted heartbeat, by the event loop's clock; None before the first one."""
        self._unjudged_until = 0.0
        """The time until which the age of a heartbeat says nothing: no node could send one before."""
        self._refusal: str | None = None
        self.size = 0
        """The number of nodes as of the last heartbeat."""
        self.clock = RedisClock()

    @property
    def last_beat(self) -> float | None:
        """The time of this node's last heartbeat (ms, Redis' clock); None if that is not known."""
        seen = self._nodes.get(self.node)
        return None if seen is None else seen.beat

    @property
    def unaccepted(self) -> str | None:
        """The reason why Redis does not take this node's heartbeats now; None if it does, or has not been asked yet."""
        if self._refusal is not None:
            return f"Redis refuses commands: {self._refusal}"
        now = asyncio.get_running_loop().time()
        if self._accepted_at is not None and now - self._accepted_at > _LATE_SECONDS:
            return "Redis does not answer in time"
        return None

    def rename(self) -> str:
        """Take a new name, under which this node has yet to join. Returns the former name."""
        former, self.node = self.node, new_node_name()
        return former

    async def join(self) -> None:
        """Join the cluster under the present name, which no other node has used."""
        await self._beat(join=True)

    async def beat(self) -> bool:
        """Send a heartbeat and read those of all nodes. False if this node was declared dead meanwhile."""
        node = self.node
        reply = await self._beat(join=False)
        if reply is None:
            return node != self.node  # the name of before has ended meanwhile
        now = asyncio.get_running_loop().time()
        self._observe(dict(self._client.unreadable.read_all("nodes", _heartbeat, pairs(reply[1]))), now)
        return True

    def _observe(self, beats: dict[str, float], now: float) -> None:
        seen_at, self._seen_at = self._seen_at, now
        if seen_at is None or now - seen_at > _LONGEST_GAP_SECONDS:
            if seen_at is not None:
                self._unjudged_until = now + DEAD_AFTER_SECONDS
            self._nodes = {node: _Seen(beat) for node, beat in beats.items()}
        else:
            former, seconds = self._nodes, now - seen_at
            self._nodes = {node: former.get(node, _Seen(beat)).next(beat, seconds) for node, beat in beats.items()}

    async def _beat(self, *, join: bool) -> Reply:
        asked = time.monotonic()
        beat = self._client.run(scripts.BEAT, [self._keys.nodes], self.node, int(join))
        try:
            reply, _ = await asyncio.gather(beat, self._client.confirm_cluster())
        except StoreRefused as error:
            self._refusal = error.word
            self.restart_timeouts()
            raise
        self._refusal = None
        self._accepted_at = asyncio.get_running_loop().time()
        if reply is not None:
            latest = max(float(beat) for _, beat in pairs(reply[1]))
            self.clock.record(reply[0], asked, time.monotonic(), latest_ms=latest)
            self.size = len(reply[1]) // 2
        return reply

    def restart_timeouts(self) -> None:
        """Forget for how long heartbeats have stood still: no node could send one."""
        self._unjudged_until = asyncio.get_running_loop().time() + DEAD_AFTER_SECONDS
        self._nodes.clear()
        self._seen_at = None
        self.clock.forget()

    def dead(self) -> dict[str, float]:
        """Return the nodes whose heartbeat has stood still for six seconds, or that were declared dead.

        Each with its last heartbeat.
        """
        return {
            node: seen.beat
            for node, seen in self._nodes.items()
            if node != self.node and (seen.beat < 0 or seen.still_for > DEAD_AFTER_SECONDS - _TOLERANCE_SECONDS)
        }

    async def is_evicted(self) -> bool:
        """Return whether this node was declared dead, which its next heartbeat will notice."""
        beat = await self._client.call("ZSCORE", self._keys.nodes, self.node)
        return beat is None or float(beat) < 0

    async def alive(self) -> set[str]:
        """Return the nodes that sent a heartbeat in the last six seconds, and this one.

        If no node could send one in that time, they are all that were not declared dead.
        """
        judges = asyncio.get_running_loop().time() >= self._unjudged_until
        age = int(DEAD_AFTER_SECONDS * 1000) if judges else ""
        reply = await self._client.run(scripts.ALIVE, [self._keys.nodes], age)
        return self._names(reply) | {self.node}

    async def all_nodes(self) -> set[str]:
        """Return every node in the registry, alive or not."""
        return self._names(await self._client.call("ZRANGE", self._keys.nodes, 0, -1))

    def _names(self, reply: list[bytes]) -> set[str]:
        return set(self._client.unreadable.read_all("nodes", _name, reply))

    async def remove(self, node: str) -> None:
        """Remove a node's lists, and its entry at last: it shows that there is something to remove.

        An inbox in which there is something stays until it expires.
        """
        await self._client.call("DEL", self._keys.sessions(node), self._keys.channels(node))
        await self._client.run(scripts.INBOX_DROP, [self._keys.inbox(node)])
        await self._client.call("ZREM", self._keys.nodes, node)


def _name(node: bytes) -> str:
    return bytes(node).decode()


def _heartbeat(row: tuple[bytes, bytes]) -> tuple[str, float]:
    node, beat = row
    return _name(node), float(beat)
