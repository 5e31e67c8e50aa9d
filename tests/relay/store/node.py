"""A stand-in for a node, for tests that kill one: `python node.py DIRECTORY`.

Prints `ready GUARD SERVER`, then one line per acknowledged write, until it is killed, or told to stop and drained.
"""

import asyncio
import signal
import sys
from pathlib import Path

from redis.asyncio import Redis

from relay.store import PrivateServer

DRAIN = 1000  # writes between being told to stop and stopping; takes longer than the server needs to end on a signal


async def run(directory: Path) -> None:
    told = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, told.set)
    server = await PrivateServer.start(directory)
    async with Redis.from_url(server.url) as client:
        say("ready", server.guard_pid, server.pid)
        count = await client.llen("written")
        left = DRAIN
        while left:
            await client.rpush("written", count)
            say(count)
            count += 1
            left -= told.is_set()
    await server.stop()


def say(*words: object) -> None:
    print(*words, flush=True)  # noqa: T201 - the test reads it


if __name__ == "__main__":
    asyncio.run(run(Path(sys.argv[1])))
