"""Memory of a whole bridge: after its start, with a live connection, after a conversation.

    python bench/bridge_memory.py [--messages N]

Starts a relay without a Redis server and one `conclave bridge` that joins a channel there, and has both sides say
messages of 200 characters. Prints the resident memory of the bridge's process. Linux only.
"""

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from conclave.client.link import connect
from conclave.machine.keys import create_or_load
from conclave.protocol.body import Body
from conclave.protocol.requests import ChannelCreate, Join, Send
from tests.support.bridge_process import RawBridge, configure_home
from tests.support.nodes import NodeProcess
from tests.support.waiting import wait_until


async def measure(messages: int, home: Path) -> list[tuple[str, float]]:
    relay = NodeProcess("--ephemeral")
    await relay.start()
    found: list[tuple[str, float]] = []
    try:
        (home / "ann").mkdir()
        await configure_home(home / "ann", "ann", relay.url)
        key = create_or_load(home / "bob")
        async with (
            await connect(relay.url, key, "bench", register=("bob", "bench")) as bob,
            RawBridge(home / "ann", "--as", "bench", installed=True) as bridge,
        ):
            await bob.request(ChannelCreate("ops"))
            await bob.request(Join("ops"))
            found.append(("initialized", bridge.resident_bytes()))
            await bridge.tool("join_channel", channel="ops", perm="converse")
            found.append(("connected, in a channel", bridge.resident_bytes()))
            for _ in range(messages):
                await bob.request(Send("ops", Body(text="x" * 200)))
                await bridge.tool("send_channel", channel="ops", text="y" * 200)
            await wait_until(lambda: len(bridge.events_with("x" * 200)) == messages, what="all was heard")
            found.append((f"after {messages} messages each way", bridge.resident_bytes()))
    finally:
        await relay.stop()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the memory of a bridge.")
    parser.add_argument("--messages", type=int, default=200)
    with tempfile.TemporaryDirectory() as home:
        found = asyncio.run(measure(parser.parse_args().messages, Path(home)))
    for step, resident in found:
        sys.stdout.write(f"{step:<32}{resident / 2**20:>8.1f} MiB\n")


if __name__ == "__main__":
    main()
