"""Large sets, hashes and lists of subscribers, read in pieces."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any, Literal

from relay.redis.batches import NAMES
from relay.redis.connection import pairs
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
) -> dict[str, dict[str, bytes]]:
    """Run a script over a node's subscribers in the lists of some hundred channels.

    Returns what the script does: for each channel the texts of the paths by connection. Raises: StoreUnavailable.
    """
    found: dict[str, dict[str, bytes]] = {channel_id: {} for channel_id in channel_ids}
    cursors = dict.fromkeys(channel_ids, b"0")
    while cursors:
        replies = await asyncio.gather(
            *(
                client.run(script, [keys.subscribers(each), keys.head(each)], node, cursor, NAMES)
                for each, cursor in cursors.items()
            )
        )
        for channel_id, (cursor, *rows) in zip(list(cursors), replies, strict=True):
            found[channel_id].update((bytes(each).decode(), bytes(text)) for each, text in pairs(rows))
            if int(cursor) == 0:
                del cursors[channel_id]
            else:
                cursors[channel_id] = cursor
    return found
