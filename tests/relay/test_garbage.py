"""The collector of a node's process, which has settings that a test's own process must not get."""

import subprocess
import sys

_PROGRAM = """
import asyncio, gc
from relay.app.run import run_node

class Node:
    name = "n1"

    async def run(self):
        print(gc.get_freeze_count() > 10_000, gc.get_threshold())

asyncio.run(run_node(Node()))
"""


def test_a_node_runs_with_its_program_out_of_the_collectors_sight() -> None:
    """Otherwise each thousand logins visit all modules again and again."""
    found = subprocess.run([sys.executable, "-c", _PROGRAM], capture_output=True, text=True, check=True)
    assert found.stdout.split(" ", 1) == ["True", "(5000, 20, 20)\n"]
