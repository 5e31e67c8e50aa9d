"""A channel's log that a test trims: the removed rows are kept for the comparison with what sessions received."""

from collections.abc import Iterable
from typing import Any

from redis import Redis

from relay.model.message import START, order
from relay.redis.keys import Keys
from tests.support.delivery_check import Row

_KEYS = Keys("conclave")


class TrimmedLog:
    """One channel's log, trimmed as a small retention would trim it.

    Rows before `trimmed` are gone; those before `trimming` may be gone; no row from there on is gone.
    `last_acknowledged` is the last message of which the test knows that it was posted.
    """

    def __init__(self, redis_url: str, channel: str) -> None:
        self.last_acknowledged = START
        self.trimmed = START
        self.trimming = START
        self.acknowledged: dict[str, Row] = {}
        self._redis_url = redis_url
        self._channel = channel
        self._removed: dict[str, Row] = {}

    def acknowledge(self, message_id: str, sender: str) -> None:
        """Note that a message was posted."""
        self.acknowledged[message_id] = Row(message_id, sender)
        self.last_acknowledged = max(self.last_acknowledged, message_id, key=order)

    def trim(self, keep: int) -> None:
        """Remove all but the last rows of the log. Raises RedisError: then it may have happened or not."""
        with Redis.from_url(self._redis_url, retry=None) as redis:
            store: Any = redis
            channel_id = store.hget(_KEYS.names, self._channel).decode()
            rows = [(each.decode(), fields[b"f"].decode()) for each, fields in store.xrange(_KEYS.log(channel_id))]
            if len(rows) <= keep:
                return
            self._removed |= {each: Row(each, sender) for each, sender in rows[:-keep]}
            self.trimming = rows[-keep][0]
            store.xtrim(_KEYS.log(channel_id), minid=self.trimming, approximate=False)
            self.trimmed = self.trimming

    def rows(self, history: Iterable[Any]) -> list[Row]:
        """Return all rows that were ever in the log, which ends with this history."""
        kept = {row["id"]: Row(row["id"], row["from"]) for row in history}
        return sorted((self._removed | kept).values(), key=lambda row: order(row.id))
