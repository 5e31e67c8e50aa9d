"""The benchmarks run, each in its smallest form, and a node passes no more files and round trips than it should."""

import asyncio
import json
import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

LARGEST = {  # files, round trips; background work may add some files, but seldom in every run
    "send": (20, 1),
    "login": (38, 2),
    "join with since": (40, 2),
    "kick": (36, 4),
    "supersede": (52, 3),
}


async def output(program: str, *arguments: str) -> str:
    """Run a program of bench/ and return what it prints."""
    command = [sys.executable, str(ROOT / "bench" / program), *arguments]
    quiet = {**os.environ, "CONCLAVE_LOG": "error"}
    process = await asyncio.create_subprocess_exec(
        *command, env=quiet, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    return out.decode()


async def test_an_operation_passes_few_files_and_waits_for_few_round_trips() -> None:
    """A file more on the way of a message is one more that every reader has to open."""
    found = json.loads(await output("traced_calls.py", "--runs", "5", "--json"))
    assert found.keys() == LARGEST.keys()
    for name, row in found.items():
        files, round_trips = LARGEST[name]
        assert row["files"] <= files, name
        assert row["round_trips"] <= round_trips, name


@pytest.mark.long
@pytest.mark.parametrize(
    ("program", "arguments", "expected"),
    [
        ("cli_start.py", ("--runs", "1"), "conclave --version"),
        ("bridge_start.py", ("--runs", "1"), "ratio"),
        ("bridge_memory.py", ("--messages", "1"), "after 1 messages each way"),
        ("bridge_to_bridge.py", ("--messages", "1", "--runs", "1"), "two, of one directory"),
        ("redis_client.py", (str(ROOT), "--rounds", "1", "--appends", "320"), "append, 32 callers"),
        ("fanout_cost.py", (str(ROOT), "--rounds", "1", "--deliveries", "2000"), "2000 sessions:"),
        ("traced_calls.py", ("--runs", "1", "--functions"), "Messages.begin_post"),
    ],
)
async def test_a_benchmark_prints_its_figures(program: str, arguments: tuple[str, ...], expected: str) -> None:
    """A program that nothing runs is broken at the next change of what it imports."""
    assert expected in await output(program, *arguments)
