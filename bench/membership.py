"""The cost of a node's return to its cluster, and of the removal of a dead node: `membership.py [SESSIONS ...]`.

For each number of sessions a node is filled with sessions without sockets, each in 5 of 10,000 channels. Then all of
its connections to Redis are cut, which makes it write all its records again, while messages and heartbeats go on. At
last another node removes what it has left, as if it had died. The output is a table: the CPU time of the node's process
and of Redis, the time on the wall, and the longest time between two heartbeats that were accepted. The node, the load
and Redis share the machine.
"""

import argparse
import logging
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import structlog
import uvloop
from redis import Redis

sys.path.append(str(Path(__file__).parents[1]))

from relay.app.node import Node
from relay.redis.keys import Keys
from tests.support.nodes import node_object
from tests.support.redis_server import RedisProcess
from tests.support.socketless import Socketless
from tests.support.waiting import wait_until

SIZES = (1_000, 5_000, 20_000)
CHANNELS = 10_000
EACH = 5
KEYS = Keys("conclave")
HOUR = 3600.0


class Meter:
    """The cost of an operation. `beats` are the times at which a heartbeat was accepted."""

    def __init__(self, server: RedisProcess, node: Node) -> None:
        self._store: Any = Redis.from_url(server.url)
        self._beats: list[float] = []
        beat = node.parts.registry.beat

        async def noted() -> bool:
            accepted = await beat()
            self._beats.append(time.monotonic())
            return accepted

        node.parts.registry.beat = noted  # type: ignore[method-assign]

    async def row(self, what: str, sessions: int, operation: Callable[[], Awaitable[None]]) -> str:
        """Carry an operation out, and return a row of the table."""
        await self._next_beat()
        del self._beats[:-1]
        process, redis, wall = time.process_time(), self._redis_seconds(), time.monotonic()
        await operation()
        spent = time.process_time() - process, self._redis_seconds() - redis, time.monotonic() - wall
        await self._next_beat()
        gap = max(later - earlier for earlier, later in zip(self._beats, self._beats[1:], strict=False))
        return f"| {what} | {sessions:,} | " + " | ".join(f"{seconds:.2f} s" for seconds in (*spent, gap)) + " |"

    async def _next_beat(self) -> None:
        count = len(self._beats)
        await wait_until(lambda: len(self._beats) > count, timeout=60, what="a heartbeat")

    def _redis_seconds(self) -> float:
        cpu = self._store.info("cpu")
        return float(cpu["used_cpu_user"]) + float(cpu["used_cpu_sys"])


async def measure(sessions: int, directory: Path) -> None:
    """Print the rows for a number of sessions."""
    server = RedisProcess(directory, durable=False)
    await server.start()
    try:
        async with node_object(server.url, idle_seconds=HOUR, redis_timeout=10.0) as node:
            await Socketless(node, server.url).fill(sessions, each=EACH, channels=CHANNELS)
            store = Redis.from_url(server.url)

            async def come_back() -> None:
                store.client_kill_filter(_type="pubsub")
                store.client_kill_filter(_type="normal", skipme=True)
                await wait_until(lambda: not node.is_ready, timeout=60, what="the node has noticed")
                await wait_until(lambda: node.is_ready, timeout=600, what="the node is back")

            print(await Meter(server, node).row("come back", sessions, come_back), flush=True)  # noqa: T201 - a program
            async with node_object(server.url, redis_timeout=10.0) as other:
                print(await Meter(server, other).row("remove", sessions, lambda: remove(node, other)), flush=True)  # noqa: T201 - a program
    finally:
        server.close()


async def remove(node: Node, other: Node) -> None:
    """Have another node remove this one."""
    dead_nodes = other.parts.janitor._dead_nodes  # noqa: SLF001 - the step alone
    beat = node.parts.registry.last_beat
    node.parts.membership._state = node.parts.membership.state.EVICTED  # noqa: SLF001 - so that it does not beat
    await wait_until(lambda: dead_nodes.remove(node.name, beat or 0.0), timeout=600, what="the node is removed")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sessions", nargs="*", type=int, default=SIZES)
    arguments = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    print("| | sessions | CPU, node | CPU, Redis | wall | longest between heartbeats |")  # noqa: T201 - a program
    print("|---|---|---|---|---|---|")  # noqa: T201 - a program
    for sessions in arguments.sessions:
        with tempfile.TemporaryDirectory() as directory:
            uvloop.run(measure(sessions, Path(directory)))


if __name__ == "__main__":
    main()
