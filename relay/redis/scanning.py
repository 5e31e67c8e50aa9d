"""Large sets, hashes and lists of subscribers, read in pieces."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any, Literal

from relay.redis.batches import NAMES
from relay.redis.keys import Keys
from relay.redis.scripts import Script
from relay.redis.store import Store


async def scan(client: Store, command: Literal["HSCAN", "SSCAN"], key: str) -> AsyncIterator[list[Any]]:
    """Yield the members of a set, or the fields and values of a hash, piece by piece.

    What is there all the time is yielded; what is removed meanwhile may be. Raises: StoreUnavailable.
    """
    cursor = b"0"
    while True:
        cursor, members = await client.call(command, key, cursor, "COUNT", NAMES)
        if members:
            yield members
        if int(cursor) == 0:
            return


async def scan_subscribers(
    client: Store, keys: Keys, script: Script, node: str, channel_ids: Sequence[str]
) -> dict[str, list[str]]:
    """Run a script over the lists of subscribers of some hundred channels, and return what it finds in each.

    Raises: StoreUnavailable.
    """
    found: dict[str, list[str]] = {channel_id: [] for channel_id in channel_ids}
    cursors = dict.fromkeys(channel_ids, b"0")
    while cursors:
        replies = await asyncio.gather(
            *(client.run(script, [keys.subscribers(each)], node, cursor, NAMES) for each, cursor in cursors.items())
        )
        for channel_id, (cursor, *rows) in zip(list(cursors), replies, strict=True):
            found[channel_id] += [bytes(row).decode() for row in rows]
            if int(cursor) == 0:
                del cursors[channel_id]
            else:
                cursors[channel_id] = cursor
    return found
