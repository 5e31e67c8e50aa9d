"""The end of a child process: waited for, and forced when its time is up."""

import asyncio
import signal

from relay.processes.ending import end_within


async def started(script: str) -> asyncio.subprocess.Process:
    """Start a shell script that prints a line when its signal handlers are set."""
    process = await asyncio.create_subprocess_exec("sh", "-c", script, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    assert await process.stdout.readline() == b"ready\n"
    return process


async def test_a_process_that_ends_in_time_is_not_killed() -> None:
    """The result says so."""
    process = await started("trap 'exit 3' TERM; echo ready; while :; do sleep 0.05; done")
    process.terminate()
    assert await end_within(process, 60)
    assert process.returncode == 3


async def test_a_process_that_ignores_sigterm_is_killed() -> None:
    """A hung child must not keep its parent from ending."""
    process = await started("trap '' TERM; echo ready; exec sleep 600")
    process.terminate()
    assert not await end_within(process, 0.2)
    assert process.returncode == -signal.SIGKILL
