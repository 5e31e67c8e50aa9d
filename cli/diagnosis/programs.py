"""Running another program for one line of its output, within a deadline."""

import asyncio
import contextlib
import os
import re
import signal
from asyncio.subprocess import DEVNULL, PIPE, Process

_LINE_BYTES = 2 * 1024 * 1024  # more than the longest command line that `ps` can show
_LINES = 50

_GRACE = 1.0
"""The time in seconds for a program to end after its answer or its deadline; then it is killed."""


async def first_match(pattern: re.Pattern[str], *command: str, deadline: float) -> re.Match[str] | None:
    """Run a program and return the first match in a line of its output; None if there is none.

    The program gets no input and no terminal. It has `deadline` seconds to answer, and another second to end before it
    is killed with all its children.

    Raises:
        OSError: if it cannot be started.
        TimeoutError: if it does not answer in time.
    """
    process = await asyncio.create_subprocess_exec(
        *command, stdin=DEVNULL, stdout=PIPE, stderr=DEVNULL, start_new_session=True, limit=_LINE_BYTES
    )
    assert process.stdout is not None  # noqa: S101 - it was asked for
    try:
        async with asyncio.timeout(deadline):
            return await _search(process.stdout, pattern)
    finally:
        await _end(process, process.stdout)


async def _search(output: asyncio.StreamReader, pattern: re.Pattern[str]) -> re.Match[str] | None:
    for _ in range(_LINES):
        try:
            line = await output.readline()
        except ValueError:  # a line without end
            return None
        found = pattern.search(line.decode(errors="replace").rstrip("\n"))
        if found or not line:
            return found
    return None


async def _end(process: Process, output: asyncio.StreamReader) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_GRACE):
            while await output.read(_LINE_BYTES):
                pass
            await process.wait()
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    # Without this, waiting lasts as long as a child that the program left behind holds its output open.
    process._transport.close()  # type: ignore[attr-defined] # noqa: SLF001 - asyncio offers no other way
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_GRACE):
            await process.wait()
