"""The CPU time of a fan-out in this tree and in another one: `fanout_cost.py OTHER_TREE [--rounds N] [--deliveries N]`.

Neither Redis nor the kernel has a share in it, which makes differences as large as they can be. The two trees run
alternately, each in a process of its own. The output is the median of each in microseconds per delivery, and the median
of the ratios of neighbours. Only the ratio means anything on another machine.
"""

import argparse
import asyncio
import itertools
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
SIZES = (1, 10, 200, 2000)


class Nowhere:
    """A transport that takes everything immediately."""

    def write(self, data: bytes) -> None: ...

    def is_closing(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return 0


async def until(holds: Callable[[], bool]) -> None:
    while not holds():  # noqa: ASYNC110 - the other tree may have nothing to wait for
        await asyncio.sleep(0.01)


def deliveries_of(node: Any) -> int:
    """Return what a node says of its deliveries: a figure without them would be very good."""
    found = re.search(rb"^conclave_deliveries_total (\S+)$", node.parts.metrics.render(), re.MULTILINE)
    if found is None:
        raise AssertionError("the node does not count its deliveries")
    return int(float(found[1]))


async def measure(deliveries: int) -> None:
    """Print for each size the microseconds per delivery in the tree that is on the path."""
    from bench import trees  # noqa: PLC0415 - of the tree that is measured, as all that it loads
    from conclave.model import SessionPath  # noqa: PLC0415

    node = trees.make_node()
    running = asyncio.create_task(node.run())
    await until(lambda: node.is_ready)
    outboxes = "relay.sessions.outbox:{0}", "relay.transport.outbox:{0}", "relay.outbox:{0}"
    new_outbox, new_flusher = (
        trees.load(*(place.format(name) for place in outboxes)) for name in ("Outbox", "Flusher")
    )
    flusher = new_flusher(node.parts.metrics.sent_bytes.inc)
    clock = asyncio.get_running_loop().time
    join = trees.part(node.parts.fanout, "join", "subscribe")
    for size in SIZES:
        channel_id = f"c{size}"
        for number in range(size):
            outbox = new_outbox(Nowhere(), flusher, limit=1 << 30, on_overflow=lambda: None, clock=clock)
            outbox.open()
            path = SessionPath(f"user{number}", "laptop", "main")
            session = trees.make_session(path=path, connection=f"{size}.{number}", outbox=outbox)
            await join(session, channel_id, "ops", "node", version=0)
        await until(partial(trees.is_live, node, channel_id))
        receive = trees.live_handler(node, f"conclave:{{c:{channel_id}}}:live")
        count = deliveries // max(size, 10)
        now = time.time_ns() // 1_000_000
        ids = ["0-0", *(f"{now + n}-0" for n in range(count))]
        live = [
            f"{this}\0{before}\x000\0ann/laptop/main\0".encode() + b"\0\xc8" + b"x" * 200
            for before, this in itertools.pairwise(ids)
        ]
        delivered = deliveries_of(node)
        began = time.process_time()
        for data in live:
            receive(data)
        took = time.process_time() - began
        if deliveries_of(node) - delivered != count * size:
            raise AssertionError(f"{deliveries_of(node) - delivered} deliveries instead of {count * size}")
        sys.stdout.write(f"{took / (count * size) * 1e6} ")
    node.stop()
    await running


def main() -> None:
    """Alternate between the two trees."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("other", type=Path, metavar="OTHER_TREE")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--deliveries", type=int, default=200_000)
    options = parser.parse_args()
    trees = [ROOT, options.other.resolve()]
    found: list[list[list[float]]] = [[], []]
    for turn in range(options.rounds):
        for index in (0, 1) if turn % 2 else (1, 0):
            command = [sys.executable, "-P", __file__, "--measure", str(options.deliveries)]
            environment = {
                **os.environ,
                "CONCLAVE_LOG": "warn",
                "PYTHONPATH": os.pathsep.join((str(trees[index]), str(ROOT))),
            }
            done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)  # noqa: S603
            found[index].append([float(each) for each in done.stdout.split()])
    for at, size in enumerate(SIZES):
        here, there = ([run[at] for run in runs] for runs in found)
        ratio = statistics.median(a / b for a, b in zip(here, there, strict=True))
        sys.stdout.write(
            f"{size:5} sessions: {statistics.median(here):7.3f} us here, {statistics.median(there):7.3f} us there, "
            f"ratio {ratio:.3f}\n"
        )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        asyncio.run(measure(int(sys.argv[2])))
    else:
        main()
