"""A short run of each fuzz target, and its seeds without a fuzzer; `make fuzz` is the long one."""

import asyncio
import importlib.util
import os
import sys
from pathlib import Path

import pytest

from tests.fuzz.targets import TARGETS

ROOT = Path(__file__).parents[2]
SECONDS = 2


@pytest.mark.parametrize("name", TARGETS)
def test_the_invariants_hold_for_the_seeds(name: str) -> None:
    """On every platform, with every version of Python; earlier findings are among the seeds."""
    target = TARGETS[name]
    for seed in target.seeds:
        target.check(seed)  # caches fill
        target.run(seed)


@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="atheris has wheels for Linux on x86-64 only")
@pytest.mark.parametrize("name", TARGETS)
async def test_a_few_seconds_find_nothing(name: str, tmp_path: Path) -> None:
    """In a process of its own, so that a crash fails this test only."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.fuzz", name, "--seconds", str(SECONDS)),
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(60):
        out, _ = await process.communicate()
    assert process.returncode == 0, out.decode(errors="replace")[-4000:]
    assert b"Done " in out
    assert list((tmp_path / ".fuzz").iterdir()) == []
