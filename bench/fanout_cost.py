"""The CPU time of a fan-out in this tree and in another one: `fanout_cost.py OTHER_TREE [--rounds N] [--deliveries N]`.

Neither Redis nor the kernel has a share in it, which makes differences as large as they can be. The two trees measure
alternately, each in a process of its own. The output is the least CPU time in microseconds per delivery, the number of
the interpreter's instructions, and the ratios. Only ratios mean anything on another machine, and on a busy one only
that of the instructions.
"""

import argparse
import asyncio
import gc
import itertools
import re
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

sys.path.append(str(Path(__file__).parents[1]))

from bench import trees
from bench.paired import MEASURE, ROOT, Tree, alternate
from conclave.model import SessionPath  # of the tree that is measured, as all that `trees` loads

SIZES = (1, 10, 200, 2000)
COUNTED = 5
"""The messages whose instructions are counted."""


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


class Channel(NamedTuple):
    """A channel with sessions in it, and the way of its live messages into the node."""

    sessions: int
    receive: Callable[[bytes], None]
    ids: Iterator[str]


async def set_up(node: Any, codec: Any, sessions: int) -> Channel:
    """Have sessions of one channel join, and wait until it expects its messages live."""
    outboxes = "relay.sessions.outbox:{0}", "relay.transport.outbox:{0}", "relay.outbox:{0}"
    new_outbox = trees.load(*(place.format("Outbox") for place in outboxes))
    settings: dict[str, Any] = {"limit": 1 << 30, "on_overflow": lambda: None}
    if hasattr(node.parts, "flusher"):
        flusher = node.parts.flusher
    else:
        flusher = trees.load(*(place.format("Flusher") for place in outboxes))(node.parts.metrics.sent_bytes.inc)
        settings["clock"] = asyncio.get_running_loop().time
    join = trees.part(node.parts.fanout, "join", "subscribe")
    channel_id = f"c{sessions}"
    for number in range(sessions):
        outbox = new_outbox(Nowhere(), flusher, **settings)
        outbox.open()
        path = SessionPath(f"user{number}", "laptop", "main")
        session = trees.make_session(codec, path=path, connection=f"{sessions}.{number}", outbox=outbox)
        await join(session, channel_id, "ops", "node", version=0)
    await until(partial(trees.is_live, node, channel_id))
    now = time.time_ns() // 1_000_000
    ids = itertools.chain(["0-0"], (f"{now + number}-0" for number in itertools.count()))
    return Channel(sessions, trees.live_handler(node, f"conclave:{{c:{channel_id}}}:live"), ids)


def deliver(node: Any, channel: Channel, previous: str, deliveries: int) -> tuple[float, str]:
    """Hand live messages to the node. Returns the microseconds per delivery, and the last message's id."""
    live = []
    for message_id in itertools.islice(channel.ids, deliveries // max(channel.sessions, 10)):
        live.append(f"{message_id}\0{previous}\x000\0ann/laptop/main\0".encode() + b"\0\xc8" + b"x" * 200)
        previous = message_id
    counted = deliveries_of(node)
    gc.collect()
    gc.disable()  # a collection takes as long as the heap is large, which is not what is measured
    began = time.process_time()
    for data in live:
        channel.receive(data)
    took = time.process_time() - began
    gc.enable()
    if deliveries_of(node) - counted != len(live) * channel.sessions:
        raise AssertionError(f"{deliveries_of(node) - counted} deliveries instead of {len(live) * channel.sessions}")
    return took / (len(live) * channel.sessions) * 1e6, previous


def count_steps(node: Any, channel: Channel, previous: str) -> tuple[float, str]:
    """Return the bytecode instructions per delivery, and the last message's id. No other process has a share in it."""
    steps = 0

    def count(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal steps
        frame.f_trace_lines, frame.f_trace_opcodes = False, True
        steps += event == "opcode"
        return count

    receive = channel.receive

    def counted(data: bytes) -> None:
        sys.settrace(count)
        receive(data)
        sys.settrace(None)

    _, previous = deliver(node, channel._replace(receive=counted), previous, COUNTED * max(channel.sessions, 10))
    return steps / COUNTED / channel.sessions, previous


async def measure(deliveries: int) -> None:
    """For each line of input, print the microseconds per delivery for each size, in the tree that is on the path."""
    node = trees.make_node()
    running = asyncio.create_task(node.run())
    await until(lambda: node.is_ready)
    codec = trees.make_codec()
    channels = [await set_up(node, codec, size) for size in SIZES]
    previous = [next(channel.ids) for channel in channels]
    for at, channel in enumerate(channels):
        steps, previous[at] = count_steps(node, channel, previous[at])
        sys.stdout.write(f"{steps} ")
    sys.stdout.write("\n")
    sys.stdout.flush()
    while await asyncio.to_thread(sys.stdin.readline):
        for at, channel in enumerate(channels):
            cost, previous[at] = deliver(node, channel, previous[at], deliveries)
            sys.stdout.write(f"{cost} ")
        sys.stdout.write("\n")
        sys.stdout.flush()
    node.stop()
    await running


def main() -> None:
    """Alternate between the two trees."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("other", type=Path, metavar="OTHER_TREE")
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--deliveries", type=int, default=10_000)
    options = parser.parse_args()
    here, there = (
        Tree(path, __file__, (str(options.deliveries),), len(SIZES)) for path in (ROOT, options.other.resolve())
    )
    steps = here.read(), there.read()
    found = alternate(here, there, options.rounds)
    for at, size in enumerate(SIZES):
        ours, theirs = (min(figures[at] for figures in rows) for rows in found)
        here_steps, there_steps = (each[at] for each in steps)
        sys.stdout.write(
            f"{size:5} sessions: {ours:7.3f} us here, {theirs:7.3f} us there, ratio {ours / theirs:.3f}; "
            f"instructions {here_steps:6.1f} and {there_steps:6.1f}, ratio {here_steps / there_steps:.3f}\n"
        )


if __name__ == "__main__":
    if sys.argv[1:2] == [MEASURE]:
        asyncio.run(measure(int(sys.argv[2])))
    else:
        main()
