"""The command line as a user has it: a process of its own."""

import asyncio
import os
from pathlib import Path

import msgspec

from tests.support.programs import DEVNULL, PIPE, Process, fork, launch


class Finished(msgspec.Struct, frozen=True):
    """The exit code and the output of a command."""

    code: int
    out: str
    err: str


async def start(
    directory: Path, *arguments: str, env: dict[str, str] | None = None, installed: bool = False
) -> Process:
    """Start `conclave` with this configuration directory; the caller waits for it or ends it.

    It is forked, or with `installed` started as its user does.
    """
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("CONCLAVE_", "_CONCLAVE_"))}
    return await (launch if installed else fork)(
        *("--config-dir", str(directory), *arguments),
        stdin=DEVNULL,
        stdout=PIPE,
        stderr=PIPE,
        env={**clean, "PYTHONUTF8": "1", **(env or {})},
    )


async def conclave(
    directory: Path, *arguments: str, env: dict[str, str] | None = None, installed: bool = False
) -> Finished:
    """Run `conclave` to its end."""
    process = await start(directory, *arguments, env=env, installed=installed)
    try:
        async with asyncio.timeout(60):
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return Finished(process.returncode or 0, out.decode(), err.decode())
