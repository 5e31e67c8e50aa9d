"""Idempotency keys of whispers: a whisper that is repeated under its key is the same whisper.

Reserving a key and putting the whisper into an inbox are two steps, in two hash slots. Between them the whisper is
reserved and not known to be sent. A sender that repeats it then sends it again under the same id, and a session that
already received it drops it.
"""

import msgspec

from relay.redis import scripts
from relay.redis.channel_log import KEY_MS
from relay.redis.keys import Keys
from relay.redis.store import Store


class IdempotencyRecord(msgspec.Struct, frozen=True):
    """The id of a whisper, its time (ms of Redis' clock), and whether it is known to be sent."""

    id: str
    ts: int
    sent: bool


class IdempotencyKeys:
    """The keys of the last five minutes. Every method raises StoreUnavailable."""

    def __init__(self, client: Store, keys: Keys) -> None:
        self._client = client
        self._keys = keys

    async def reserve(self, user: str, key: str, whisper_id: str) -> IdempotencyRecord:
        """Reserve a key for this id. Returns the record of the id that reserved it first."""
        name = self._keys.whispered(user, key)
        found, ms, sent = await self._client.run(scripts.PROMISE, [name], whisper_id, KEY_MS)
        return IdempotencyRecord(bytes(found).decode(), int(ms), bytes(sent) == b"1")

    async def mark_sent(self, user: str, key: str, record: IdempotencyRecord) -> None:
        """Record that the whisper was sent."""
        name = self._keys.whispered(user, key)
        await self._client.call("SET", name, f"{record.id} {record.ts} 1", "XX", "PX", KEY_MS)
