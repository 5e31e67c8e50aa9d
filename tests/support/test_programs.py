"""A forked `conclave` is a process like an installed one."""

import os
import signal
from pathlib import Path

import pytest

from tests.support.nodes import NodeProcess
from tests.support.programs import DEVNULL, PIPE, Forked, fork


async def test_it_has_its_own_directory_environment_and_streams(tmp_path: Path) -> None:
    """And leaves an exit code."""
    asked = {"_CONCLAVE_COMPLETE": "bash_complete", "COMP_WORDS": "conclave ser", "COMP_CWORD": "1"}
    process = await fork(env={**os.environ, **asked}, stdin=DEVNULL, stdout=PIPE, stderr=PIPE)
    out, err = await process.communicate()
    assert (out.split()[0], err) == (b"plain,serve", b"")
    process = await fork("--config-dir", "here", "key", cwd=tmp_path, stdin=DEVNULL, stdout=PIPE, stderr=PIPE)
    out, err = await process.communicate()
    assert (process.returncode, len(out), err) == (0, 44, b"")
    assert os.listdir(tmp_path / "here") == ["key"]  # noqa: PTH208 - names only
    process = await fork("bogus", stdin=DEVNULL, stderr=PIPE)
    _, err = await process.communicate()
    assert (process.returncode, b"No such command 'bogus'" in err) == (2, True)


async def test_it_ends_by_signals(redis_url: str) -> None:
    """By SIGKILL at once, also while it is stopped; SIGTERM and Ctrl-C are its own to handle."""
    for number, code in ((signal.SIGKILL, -signal.SIGKILL), (signal.SIGTERM, 0), (signal.SIGINT, 0)):
        node = NodeProcess("--redis-url", redis_url)
        await node.start()
        process = node._process
        assert isinstance(process, Forked)
        assert os.getsid(process.pid) == process.pid
        node.pause()
        os.killpg(process.pid, number)
        node.resume()
        assert await process.wait() == code
        await node.stop()


async def test_what_needs_a_new_interpreter_is_refused() -> None:
    """It would be ignored, and the test would show nothing."""
    with pytest.raises(AssertionError, match="PYTHONPATH needs an interpreter of its own"):
        await fork("key", env={**os.environ, "PYTHONPATH": "/elsewhere"})
