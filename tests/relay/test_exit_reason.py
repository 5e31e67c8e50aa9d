"""The reason of a relay's exit, in its log and on its terminal."""

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
def used_address() -> Iterator[str]:
    """An address at which another process listens."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        yield f"127.0.0.1:{other.getsockname()[1]}"


def reasons(finished: Finished) -> list[str]:
    """Return the reasons in the lines of JSON; the last line is the command line's own."""
    lines = finished.err.splitlines()
    assert [line for line in lines if not line.startswith("{")] == lines[-1:]
    events = [orjson.loads(line) for line in lines[:-1]]
    return [each["reason"] for each in events if (each["event"], each["level"]) == ("node.ended", "error")]


async def test_the_reason_of_an_exit_is_a_log_event(tmp_path: Path, used_address: str) -> None:
    """A collector that takes JSON drops all other lines, and this is the one that an operator looks for."""
    finished = await conclave(tmp_path, *SERVE, used_address, env={"CONCLAVE_LOG_FORMAT": "json"})
    assert finished.code == 1
    assert [each.partition(": ")[0] for each in reasons(finished)] == [f"failed to bind `{used_address}`"]


async def test_the_reason_of_a_failed_start_is_a_log_event(tmp_path: Path) -> None:
    """A setting that only the node itself can reject, or a store that cannot be started."""
    env = {"CONCLAVE_LOG_FORMAT": "json"}
    finished = await conclave(tmp_path, *SERVE, "127.0.0.1:0", "--key-prefix", "a b", env=env)
    assert finished.code == 1
    assert [each.partition("`")[0] for each in reasons(finished)] == ["invalid key prefix "]
    (tmp_path / "file").touch()
    finished = await conclave(tmp_path, "serve", "--data-dir", str(tmp_path / "file" / "store"), env=env)
    assert finished.code == 1
    assert len(reasons(finished)) == 1


def test_a_person_at_a_terminal_reads_it_once(used_address: str) -> None:
    """As a sentence, without the same in a log event above it."""
    ours, theirs = os.openpty()
    with os.fdopen(ours, "rb", buffering=0) as screen:
        command = [sys.executable, "-m", "cli.main", *SERVE, used_address]
        try:
            done = subprocess.run(command, stderr=theirs, stdin=subprocess.DEVNULL, timeout=60, check=False)
        finally:
            os.close(theirs)
        assert done.returncode == 1
        assert screen.read(65_536).decode().count("failed to bind") == 1
