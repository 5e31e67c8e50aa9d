"""The benchmark of `make bench` in its smoke: what nothing runs is broken at the next change."""

import asyncio
import json
import os
import sys
from pathlib import Path

from bench.load.__main__ import NAMES
from bench.load.report import RATIOS
from tests.support.trials import by_form

ROOT = Path(__file__).parents[2]
SECONDS = 300


async def test_the_smoke_measures_every_scenario(tmp_path: Path) -> None:
    """Every scenario runs and has figures, for this tree and for the floors, with a load of two processes."""
    scenarios = by_form(("post-sparse", "deliver-burst", "script"), NAMES, NAMES)
    found = tmp_path / "found.json"
    words = ("--scale", "smoke", "--processes", "2", "--json", str(found), *scenarios)
    clean = {name: value for name, value in os.environ.items() if not name.startswith("CONCLAVE_")}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.load", *words),
        cwd=ROOT,
        env=clean,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(SECONDS):
        page, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()[-4000:]
    sections = json.loads(found.read_bytes())["sections"]
    assert [section["name"] for section in sections] == list(scenarios)
    for section in sections:
        assert f"### {section['title']}\n" in page.decode()
        assert section["metrics"], section["name"]
        for metric, columns in section["metrics"].items():
            assert all(value >= 0 for values in columns.values() for value in values), (section["name"], metric)
    assert {"this v2 / floor", "this v2 / floor, joined"} <= {f"{one} / {other}" for one, other in RATIOS}
    assert b"this v2 / floor" in page
