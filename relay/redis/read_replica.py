"""The read replica: live delivery and pages of logs come from it while it keeps up with the primary.

A replica that lags shows a moment that has passed. So permissions, presence and the end of a log are always read from
the primary, and every write goes there.

A node writes its heartbeat to the primary and reads it from the replica. While the one that the replica shows is at
most two beats old, the replica is used. When it is older, or the replica cannot be reached, or its connections do not
last, everything comes from the primary until the heartbeats have kept up for a while: ten seconds at first, and longer
each time if the replica fails again soon.
"""

import asyncio
from collections.abc import Callable, Sequence

import structlog
from redis.asyncio.connection import AbstractConnection

from relay.model.errors import StoreUnavailable
from relay.redis.client import RedisClient
from relay.redis.connection import Reply
from relay.redis.keys import Keys
from relay.redis.node_registry import BEAT_SECONDS, NodeRegistry
from relay.redis.scripts import Script
from relay.redis.store import Store

log = structlog.get_logger()

_MAX_LAG_MS = int(2 * BEAT_SECONDS * 1000)
_REQUIRED_CHECKS, _MAX_REQUIRED_CHECKS = 5, 150
"""The successful checks in a row after which the replica is used again: ten seconds at first, five minutes at most."""
_SHORT_SECONDS, _LONG_SECONDS = 10.0, 60.0
"""A connection that lasts less than the first counts as a failure of the replica; one that lasts more than the second
resets the required checks."""


class ReadReplica:
    """Chooses between the replica and the primary."""

    def __init__(self, primary: Store, replica: RedisClient, keys: Keys, registry: NodeRegistry) -> None:
        self._primary = primary
        self._replica = replica
        self._keys = keys
        self._registry = registry
        self._in_use = True
        self._checks = 0
        """The successful checks in a row."""
        self._required_checks = _REQUIRED_CHECKS
        self._connected_at: float | None = None
        """The time at which the subscriber got its connection to the replica; None if it has one to the primary."""

    @property
    def is_used(self) -> bool:
        """True while the replica is asked at all."""
        return self._in_use

    async def connection(self) -> AbstractConnection:
        """Open a connection of the caller's own, to the replica if it is used. Raises: StoreUnavailable."""
        connected_at, self._connected_at = self._connected_at, None
        self._judge_connection(connected_at)
        if self._in_use:
            try:
                connection = await self._replica.connection()
            except StoreUnavailable as error:
                self._stop_using(error.why)
            else:
                self._connected_at = asyncio.get_running_loop().time()
                return connection
        return await self._primary.connection()

    def count_error(self) -> None:
        """Count a lost connection, to either of the two."""
        self._primary.count_error()

    def count_reconnect(self) -> None:
        """Count a connection that was made again."""
        self._primary.count_reconnect()

    async def run(self, script: Script, keys: Sequence[str], *args: bytes | str | float) -> Reply:
        """Run a script that only reads at the replica; None if the replica is not used or does not reply."""
        if not self._in_use:
            return None
        try:
            return await self._replica.run(script, keys, *args)
        except StoreUnavailable:
            return None

    async def serve(self, drop: Callable[[str], None]) -> None:
        """Check the replica until cancelled. `drop(reason)` has the subscriber get a new connection."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._replica.serve())
            while True:
                await asyncio.sleep(BEAT_SECONDS)
                await self._check()
                if self._in_use != (self._connected_at is not None):
                    drop("back to the near replica" if self._in_use else "away from the near replica")

    async def _check(self) -> None:
        """Compare the heartbeat that the replica shows with the last one that the primary took."""
        beat = self._registry.last_beat
        if beat is None:
            return
        try:
            shown = await self._replica.call("ZSCORE", self._keys.nodes, self._registry.node)
        except StoreUnavailable as error:
            self._stop_using(error.why)
        else:
            if shown is None:
                self._stop_using("it does not show this node's heartbeat: is it a replica of this cluster's Redis?")
            elif float(shown) < beat - _MAX_LAG_MS:
                self._stop_using(f"it is {(beat - float(shown)) / 1000:.1f} s behind")
            else:
                self._passed()

    def _judge_connection(self, connected_at: float | None) -> None:
        """Take into account how long a connection to the replica has lasted."""
        if connected_at is None:
            return
        lasted = asyncio.get_running_loop().time() - connected_at
        if lasted < _SHORT_SECONDS:
            self._stop_using("its connections do not last")
        elif lasted > _LONG_SECONDS:
            self._required_checks = _REQUIRED_CHECKS

    def _stop_using(self, reason: str) -> None:
        self._checks = 0
        if self._in_use:
            self._in_use = False
            log.warning("replica.left", reason=reason, until_well_for=self._required_checks * BEAT_SECONDS)

    def _passed(self) -> None:
        self._checks += 1
        if not self._in_use and self._checks >= self._required_checks:
            self._in_use = True
            self._required_checks = min(2 * self._required_checks, _MAX_REQUIRED_CHECKS)
            log.info("replica.used")
