"""The store as the rest of the relay uses it: one server (`client.py`), or a Cluster (`sharding/`)."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from redis.asyncio.connection import AbstractConnection

from relay.redis.connection import Reply
from relay.redis.scripts import Script
from relay.redis.unreadable import Unreadable


class Store(Protocol):
    """A pipelining client.

    The commands of one hash slot are executed in the order of the calls. A call that failed with `StoreUnavailable` may
    have been executed. No command is executed twice.
    """

    unreadable: Unreadable
    """Counts what was read from the store and cannot be understood."""

    @property
    def is_up(self) -> bool:
        """True while the store answers; of a Cluster, the masters that a node needs to serve."""

    @property
    def masters_away(self) -> int:
        """The number of masters that do not answer: one at most, unless the store is a Cluster."""

    @property
    def refusal(self) -> str | None:
        """The code of the error, such as `LOADING`, with which Redis refuses every connection now; else None."""

    @property
    def cluster_id(self) -> str:
        """The id of the cluster that the store has to hold; empty as long as any will do."""

    async def confirm_cluster(self) -> None:
        """Check that the store still holds this node's cluster: it may have been emptied while connections stayed.

        Raises: StoreUnavailable.
        """

    def on_up(self, callback: Callable[[], Awaitable[None]]) -> None:
        """Have `callback` awaited, in the order of registration, after each outage."""

    def link_to(self, key: str) -> object | None:
        """Return the connection over which the commands of a key go now, to be compared with an earlier one.

        None while there is none. Another connection may lead to another server.
        """

    def call(self, *command: bytes | str | float) -> "asyncio.Future[Reply]":
        """Send one command, whose first argument is a key or a topic. Raises, in the future: StoreUnavailable."""

    def run(self, script: Script, keys: Sequence[str], *args: bytes | str | float) -> "asyncio.Future[Reply]":
        """Run one script, whose keys are in one slot, atomically. Raises, in the future: StoreUnavailable."""

    def count_error(self) -> None:
        """Count an error of Redis or of a connection to it."""

    def count_reconnect(self) -> None:
        """Count a connection that was made again."""

    async def connection(self, key: str | None = None) -> AbstractConnection:
        """Open a connection of the caller's own, without a read time-out, to the server that has a key.

        Raises: StoreUnavailable.
        """

    async def serve(self) -> None:
        """Carry commands until cancelled. Commands that wait then fail, and so does every later call."""
