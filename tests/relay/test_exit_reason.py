"""The end of a relay in its logs."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from tests.support.command_line import Finished, conclave

SERVE = ("serve", "--ephemeral", "--bind")


@pytest.fixture
def taken() -> Iterator[str]:
    """An address that somebody listens at."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        yield f"127.0.0.1:{other.getsockname()[1]}"


def reasons(finished: Finished) -> list[str]:
    """Return the reasons for an end among lines of JSON; the command line's own words are the one line that is none."""
    lines = finished.err.splitlines()
    assert [line for line in lines if not line.startswith("{")] == lines[-1:]
    events = [orjson.loads(line) for line in lines[:-1]]
    return [each["reason"] for each in events if (each["event"], each["level"]) == ("node.ended", "error")]


async def test_why_a_node_ends_is_an_event(tmp_path: Path, taken: str) -> None:
    """A collector that takes JSON drops what else is printed, and this is what somebody will look for."""
    finished = await conclave(tmp_path, *SERVE, taken, env={"CONCLAVE_LOG_FORMAT": "json"})
    assert finished.code == 1
    assert [each.partition(": ")[0] for each in reasons(finished)] == [f"failed to bind `{taken}`"]


async def test_why_a_node_does_not_even_start_is_an_event(tmp_path: Path) -> None:
    """A setting that only the node itself finds wrong, or a store that cannot be started."""
    env = {"CONCLAVE_LOG_FORMAT": "json"}
    finished = await conclave(tmp_path, *SERVE, "127.0.0.1:0", "--key-prefix", "a b", env=env)
    assert finished.code == 1
    assert [each.partition("`")[0] for each in reasons(finished)] == ["invalid key prefix "]
    (tmp_path / "file").touch()
    finished = await conclave(tmp_path, "serve", "--data-dir", str(tmp_path / "file" / "store"), env=env)
    assert finished.code == 1
    assert len(reasons(finished)) == 1


def test_a_person_at_a_terminal_reads_it_once(taken: str) -> None:
    """In a sentence; the same as an event above it would be noise."""
    ours, theirs = os.openpty()
    with os.fdopen(ours, "rb", buffering=0) as screen:
        command = [sys.executable, "-m", "cli.main", *SERVE, taken]
        try:
            done = subprocess.run(command, stderr=theirs, stdin=subprocess.DEVNULL, timeout=60, check=False)
        finally:
            os.close(theirs)
        assert done.returncode == 1
        assert screen.read(65_536).decode().count("failed to bind") == 1
