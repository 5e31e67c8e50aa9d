"""`conclave-conformance` as its user starts it."""

import asyncio
import sys
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "conformance"


async def examine(*arguments: str) -> tuple[int, str, str]:
    """Run the program as its user does; returns exit code, output and errors."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "conclave_conformance", *arguments),
        cwd=FOLDER,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(100):
        out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()
