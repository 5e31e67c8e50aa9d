"""A channel's log, read from the store itself: what it has, what was trimmed, and what failovers took from it."""

from collections.abc import Iterable
from typing import Any

from relay.model.message import START, order
from relay.redis.keys import Keys
from tests.chaos.deliveries import Losses, Row

_KEYS = Keys("conclave")


class ChannelLog:
    """One channel's log. Each method that reads or trims takes a client of the store (`redis.Redis`, or a cluster's).

    Rows before `trimmed` are gone; those before `trimming` may be gone; no row from there on is gone.
    `last_acknowledged` is the last message of which the test knows that it was posted and that the store has it.
    """

    def __init__(self, channel: str) -> None:
        self.last_acknowledged = START
        self.trimmed = START
        self.trimming = START
        self.acknowledged: dict[str, Row] = {}
        self.losses = Losses()
        self._channel = channel
        self._gone: dict[str, Row] = {}
        self._id = ""

    def acknowledge(self, message_id: str, sender: str) -> None:
        """Note that a message was posted."""
        self.acknowledged[message_id] = Row(message_id, sender)
        if message_id not in self.losses.all:
            self.last_acknowledged = max(self.last_acknowledged, message_id, key=order)

    def read(self, store: Any) -> dict[str, Row]:
        """Return the rows that a store has, which may be another one than that of the log."""
        if not self._id:
            self._id = store.hget(_KEYS.names, self._channel).decode()
        rows = store.xrange(_KEYS.log(self._id))
        return {each.decode(): Row(each.decode(), fields[b"f"].decode()) for each, fields in rows}

    def trim(self, store: Any, keep: int) -> None:
        """Remove all but the last rows of the log. Raises RedisError: then it may have happened or not."""
        rows = list(self.read(store).values())
        if len(rows) <= keep:
            return
        self._gone |= {row.id: row for row in rows[:-keep]}
        self.trimming = rows[-keep].id
        store.xtrim(_KEYS.log(self._id), minid=self.trimming, approximate=False)
        self.trimmed = self.trimming

    def lose(self, before: dict[str, Row], after: dict[str, Row], delivered: Iterable[str]) -> int:
        """Note that a failover took what the old store had before, and the new one has not. Returns the rows' number.

        `delivered` are the messages that sessions have received.
        """
        lost = {each: row for each, row in before.items() if each not in after and each not in self._gone}
        known = lost.keys() & (self.acknowledged.keys() | set(delivered))
        self._gone |= lost
        self.losses = Losses(self.losses.all | lost.keys(), self.losses.known | known)
        kept = self.acknowledged.keys() - self.losses.all
        self.last_acknowledged = max(kept, key=order, default=START)
        return len(lost)

    def rows(self, store: Any) -> list[Row]:
        """Return all rows that were ever in the log."""
        return sorted((self._gone | self.read(store)).values(), key=lambda row: order(row.id))
