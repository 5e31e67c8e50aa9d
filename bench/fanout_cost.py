"""What a fan-out costs in this tree and in another one: `fanout_cost.py OTHER_TREE`.

Neither Redis nor the kernel has a share in it, which makes differences as large as they can be. Runs of the two trees
alternate, each in a process of its own. Printed are the medians, in microseconds per delivery, and the median of the
ratios of neighbours; only the ratio means anything on another machine.
"""

import asyncio
import itertools
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROUNDS = 15
SIZES = (1, 10, 200, 2000)
DELIVERIES = 200_000


class Nowhere:
    """A transport that takes everything at once."""

    def write(self, data: bytes) -> None: ...

    def is_closing(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return 0


async def nothing_waits() -> None: ...


async def until(holds: Callable[[], bool]) -> None:
    while not holds():  # noqa: ASYNC110 - the other tree may have nothing to wait for
        await asyncio.sleep(0.01)


async def measure() -> None:
    """Print for each size the microseconds per delivery in the tree that is on the path."""
    from conclave.model import SessionPath  # noqa: PLC0415 - of the tree that is measured
    from relay.app.config import Ephemeral, NodeConfig  # noqa: PLC0415
    from relay.app.node import Node  # noqa: PLC0415
    from relay.observability import logs  # noqa: PLC0415
    from relay.protocol.v1 import V1Codec  # noqa: PLC0415
    from relay.redis import connect  # noqa: PLC0415
    from relay.services.server_admins import ServerAdmins  # noqa: PLC0415
    from relay.sessions.outbox import Outbox  # noqa: PLC0415
    from relay.sessions.session import Session  # noqa: PLC0415

    logs.configure()
    node = Node(NodeConfig(host="127.0.0.1", port=0, store=Ephemeral(), admins=ServerAdmins({})), connect.in_process())
    running = asyncio.create_task(node.run())
    await until(lambda: node.is_ready)
    encoder, fanout = V1Codec(), node._fanout  # noqa: SLF001
    flusher = node._connections._flusher  # noqa: SLF001
    loop = asyncio.get_running_loop()
    for size in SIZES:
        for number in range(size):
            path = SessionPath(f"user{number}", "laptop", "main")
            outbox = Outbox(Nowhere(), flusher, limit=1 << 30, on_overflow=lambda: None, clock=loop.time)
            outbox.open()
            session = Session(
                path=path,
                pubkey="",
                admin=False,
                connection=f"{size}.{number}",
                encoder=encoder,
                outbox=outbox,
                interrupt=lambda: None,
                drained=nothing_waits,
            )
            await fanout.subscribe(session, f"c{size}", "ops", "node", version=0)
        room = fanout._rooms[f"c{size}"]  # noqa: SLF001
        await until(lambda room=room: room.feed.is_live)
        topic = f"conclave:{{c:c{size}}}:live"
        count = DELIVERIES // max(size, 10)
        now = time.time_ns() // 1_000_000
        ids = ["0-0", *(f"{now + n}-0" for n in range(count))]
        live = [
            f"{this}\0{before}\x000\0ann/laptop/main\0".encode() + b"\0\xc8" + b"x" * 200
            for before, this in itertools.pairwise(ids)
        ]
        began = time.process_time()
        for data in live:
            fanout.heard(topic, data)
        sys.stdout.write(f"{(time.process_time() - began) / (count * size) * 1e6} ")
    node.stop()
    await running


def main() -> None:
    """Alternate between the two trees."""
    trees = [Path(__file__).parents[1], Path(sys.argv[1])]
    found: dict[Path, list[list[float]]] = {tree: [] for tree in trees}
    for turn in range(ROUNDS):
        for tree in trees if turn % 2 else reversed(trees):
            command = [sys.executable, "-P", __file__, "--measure"]
            environment = {**os.environ, "PYTHONPATH": str(tree)}
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)  # noqa: S603
            found[tree].append([float(each) for each in done.stdout.split()])
    this, other = found.values()
    for at, size in enumerate(SIZES):
        mine, theirs = [run[at] for run in this], [run[at] for run in other]
        ratio = statistics.median(a / b for a, b in zip(mine, theirs, strict=True))
        sys.stdout.write(
            f"{size:5} sessions: {statistics.median(mine):7.3f} here, {statistics.median(theirs):7.3f} there, "
            f"ratio {ratio:.3f}\n"
        )


if __name__ == "__main__":
    if sys.argv[1:] == ["--measure"]:
        asyncio.run(measure())
    else:
        main()
