"""The CPU time of a post's way to Redis and back in this tree and in another one: `redis_client.py OTHER_TREE`.

Callers append messages of 200 bytes to a channel's log, one alone and 32 at the same time, each with its next one when
the last one is answered. Then a script publishes messages, and a subscription counts them. The trees measure
alternately, each in a process of its own, at one Redis. The output is the median CPU time of the process for each, the
kernel's share included, that of Redis for an append, and the ratios. Only ratios mean anything on another machine.
"""

import argparse
import asyncio
import inspect
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvloop
from redis import Redis

sys.path.append(str(Path(__file__).parents[1]))

from bench import trees
from bench.paired import MEASURE, ROOT, Tree, alternate

CALLERS = (1, 32)
ROWS = ("append, 1 caller", "append, 32 callers", "live message", "Redis, append")
PAYLOAD = b"x" * 200
FENCE: dict[str, str] = {}
"""The fence of the channel, if the tree has one."""
PUBLISH = "for _ = 1, tonumber(ARGV[1]) do redis.call('PUBLISH', 'live', ARGV[2]) end"


async def append(log: Any, channel: str, times: int) -> None:
    for _ in range(times):
        await log.append(channel, "ann/laptop/main", PAYLOAD, version=0, **FENCE)


async def cost(log: Any, callers: int, appends: int) -> float:
    """Return the microseconds of CPU per append."""
    began = time.process_time()
    await asyncio.gather(*(append(log, f"c{callers}", appends // callers) for _ in range(callers)))
    return (time.process_time() - began) / (appends // callers * callers) * 1e6


async def cost_of_live(client: Any, broker: Any, messages: int) -> float:
    """Return the microseconds of CPU per message of a topic."""
    done = asyncio.Event()
    left = messages

    def receive(_: bytes) -> None:
        nonlocal left
        left -= 1
        if not left:
            done.set()

    await broker.subscribe("live", receive)
    began = time.process_time()
    for _ in range(messages // 100):
        await client.call("EVAL", PUBLISH, 0, 100, PAYLOAD)
    await done.wait()
    return (time.process_time() - began) / messages * 1e6


async def measure(url: str, appends: int) -> None:
    """For each line of input, print the microseconds of each row."""
    trees.load("relay.observability.logs:configure")()
    metrics = trees.load("relay.observability.metrics:Metrics")(trees.load("relay.redis.scripts:NAMES"))
    make = trees.load("relay.redis.connect:real")(url)
    client = trees.load("relay.redis.client:RedisClient")(make, timeout=5.0, metrics=metrics)
    retention = trees.load("relay.redis.channel_log:Retention")(ms=3_600_000, rows=1000, group_bytes=1 << 20)
    keys = trees.load("relay.redis.keys:Keys")("b")
    log = trees.load("relay.redis.channel_log:ChannelLog")(client, keys, retention)
    broker = trees.load("relay.redis.broker:Broker")(client, confirm_timeout=5.0)
    serving = [asyncio.create_task(client.serve()), asyncio.create_task(broker.serve())]
    if "fence" in inspect.signature(log.append).parameters:
        FENCE["fence"] = "0"
    while await asyncio.to_thread(sys.stdin.readline):
        figures = [await cost(log, callers, appends) for callers in CALLERS]
        figures.append(await cost_of_live(client, broker, appends // 100 * 100))
        sys.stdout.write(" ".join(map(str, figures)) + "\n")
        sys.stdout.flush()
    for task in serving:
        task.cancel()
    await asyncio.wait(serving)


def with_store(client: "Redis") -> Callable[[Tree], list[float]]:
    """Return the measure of a tree that adds the microseconds of Redis per run of a script."""

    def measured(tree: Tree) -> list[float]:
        client.config_resetstat()
        figures = tree.measure()
        usage = client.info("commandstats")["cmdstat_evalsha"]
        return [*figures, float(usage["usec"] / usage["calls"])]

    return measured


@contextmanager
def redis() -> Iterator[str]:
    """Run a server that keeps nothing, and return its URL."""
    with tempfile.TemporaryDirectory(prefix="redis-") as directory:
        where = f"{directory}/redis.sock"
        command = [trees.load("relay.store.binary:find_server")(), "--port", "0", "--unixsocket", where]
        server = subprocess.Popen(  # noqa: S603
            [*map(str, command), "--save", "", "--dir", directory], stdout=subprocess.DEVNULL
        )
        try:
            while not Path(where).exists():
                if server.poll() is not None:
                    raise SystemExit("the server has ended")
                time.sleep(0.01)
            yield f"unix://{where}"
        finally:
            server.terminate()
            server.wait()


def main() -> None:
    """Alternate between the two trees."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("other", type=Path, metavar="OTHER_TREE")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--appends", type=int, default=6_400, help="of each round, for each row")
    options = parser.parse_args()
    with redis() as url, Redis.from_url(url) as client:
        here, there = (
            Tree(path, __file__, (url, str(options.appends)), len(ROWS) - 1) for path in (ROOT, options.other.resolve())
        )
        found = alternate(here, there, options.rounds, with_store(client))
    for at, row in enumerate(ROWS):
        ours, theirs = (statistics.median(figures[at] for figures in rows) for rows in found)
        sys.stdout.write(f"{row:18} {ours:6.1f} us here, {theirs:6.1f} us there, ratio {ours / theirs:.3f}\n")


if __name__ == "__main__":
    if sys.argv[1:2] == [MEASURE]:
        uvloop.run(measure(sys.argv[2], int(sys.argv[3])))
    else:
        main()
