"""The near replica: live delivery and pages of logs come from it for as long as it keeps up with the primary.

What a lagging replica says is true of a moment that has passed. Who may do what, who is present and up to where a log
goes is therefore asked of the primary, always; so is all that writes.

A node sees its own heartbeat in the replica, written to the primary. While the last one there is at most two beats old,
the replica is used. When it is older, or the replica cannot be reached, or its connections do not last, everything
comes from the primary, until the heartbeats have kept up for a while: ten seconds at first, longer each time if the
replica fails again soon.
"""

import asyncio
from collections.abc import Callable, Sequence

import structlog
from redis.asyncio.connection import AbstractConnection

from relay.model.errors import StoreUnavailable
from relay.redis.client import RedisClient, Reply
from relay.redis.keys import Keys
from relay.redis.node_registry import BEAT_SECONDS, NodeRegistry
from relay.redis.scripts import Script

log = structlog.get_logger()

_LAG_MS = int(2 * BEAT_SECONDS * 1000)
_TRUST_LOOKS, _MOST_TRUST_LOOKS = 5, 150
"""How often in a row the replica has to be found well before it is used again: ten seconds, and five minutes."""
_SHORT_SECONDS, _LONG_SECONDS = 10.0, 60.0
"""A connection that is lost sooner than the one speaks against the replica, one that lasted the other for it."""


class ReadReplica:
    """Chooses between a replica and the primary."""

    def __init__(self, primary: RedisClient, replica: RedisClient, keys: Keys, registry: NodeRegistry) -> None:
        self._primary = primary
        self._replica = replica
        self._keys = keys
        self._registry = registry
        self._trusted = True
        self._well = 0
        self._due = _TRUST_LOOKS
        self._given_at: float | None = None
        """When a subscriber got its connection to the replica; None if it has one to the primary."""

    @property
    def is_used(self) -> bool:
        """Whether the replica is asked at all."""
        return self._trusted

    async def connection(self) -> AbstractConnection:
        """Open a connection of the caller's own, to the replica if it is used. Raises: StoreUnavailable."""
        given_at, self._given_at = self._given_at, None
        self._judge(given_at)
        if self._trusted:
            try:
                await self._replica.connect()
                connection = await self._replica.connection()
            except StoreUnavailable as error:
                self._leave(error.why)
            else:
                self._given_at = asyncio.get_running_loop().time()
                return connection
        return await self._primary.connection()

    def count_error(self) -> None:
        """Count a connection that was lost, to whichever of the two."""
        self._primary.count_error()

    def count_reconnect(self) -> None:
        """Count a connection that was made anew."""
        self._primary.count_reconnect()

    async def ask(self, script: Script, keys: Sequence[str], *args: bytes | str | float) -> Reply:
        """Run a script that only reads, at the replica; None if it is not used, or does not answer."""
        if not self._trusted:
            return None
        try:
            return await self._replica.run(script, keys, *args)
        except StoreUnavailable:
            return None

    async def serve(self, drop: Callable[[str], None]) -> None:
        """Watch the replica until cancelled; `drop(reason)` gives up the subscriber's connection for a new one."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._replica.serve())
            while True:
                await asyncio.sleep(BEAT_SECONDS)
                await self._look()
                if self._trusted != (self._given_at is not None):
                    drop("back to the near replica" if self._trusted else "away from the near replica")

    async def _look(self) -> None:
        """Compare the heartbeat that the replica shows with the one that the primary has taken."""
        beat = self._registry.last_beat
        if beat is None:
            return
        try:
            shown = await self._replica.call("ZSCORE", self._keys.nodes, self._registry.node)
        except StoreUnavailable as error:
            self._leave(error.why)
        else:
            if shown is None:
                self._leave("it does not show this node's heartbeat: is it a replica of this cluster's Redis?")
            elif float(shown) < beat - _LAG_MS:
                self._leave(f"it is {(beat - float(shown)) / 1000:.1f} s behind")
            else:
                self._found_well()

    def _judge(self, given_at: float | None) -> None:
        """Take it into account for how long a connection to the replica has lasted."""
        if given_at is None:
            return
        lasted = asyncio.get_running_loop().time() - given_at
        if lasted < _SHORT_SECONDS:
            self._leave("its connections do not last")
        elif lasted > _LONG_SECONDS:
            self._due = _TRUST_LOOKS

    def _leave(self, reason: str) -> None:
        self._well = 0
        if self._trusted:
            self._trusted = False
            log.warning("replica.left", reason=reason, until_well_for=self._due * BEAT_SECONDS)

    def _found_well(self) -> None:
        self._well += 1
        if not self._trusted and self._well >= self._due:
            self._trusted = True
            self._due = min(2 * self._due, _MOST_TRUST_LOOKS)
            log.info("replica.used")
