"""Whispers that their senders have given keys of their own, so that a repeated one is the same whisper.

A whisper's promise and its way into an inbox are two steps, in two hash slots. In between it is promised and not known
to be sent: whoever repeats it then sends it again under the same id, and the session that has it already drops it.
"""

import msgspec

from relay.redis import scripts
from relay.redis.channel_log import KEY_MS
from relay.redis.client import RedisClient
from relay.redis.keys import Keys


class IdempotencyRecord(msgspec.Struct, frozen=True):
    """A whisper's id, its time (ms of Redis' clock), and whether it is known to be sent."""

    id: str
    ts: int
    sent: bool


class IdempotencyKeys:
    """What is remembered for five minutes. Every method raises StoreUnavailable."""

    def __init__(self, client: RedisClient, keys: Keys) -> None:
        self._client = client
        self._keys = keys

    async def reserve(self, user: str, key: str, whisper_id: str) -> IdempotencyRecord:
        """Return what was promised first under this key; that is this id, if nothing was."""
        name = self._keys.whispered(user, key)
        found, ms, sent = await self._client.run(scripts.PROMISE, [name], whisper_id, KEY_MS)
        return IdempotencyRecord(bytes(found).decode(), int(ms), bytes(sent) == b"1")

    async def mark_sent(self, user: str, key: str, record: IdempotencyRecord) -> None:
        """Note that it was sent."""
        name = self._keys.whispered(user, key)
        await self._client.call("SET", name, f"{record.id} {record.ts} 1", "XX", "PX", KEY_MS)
