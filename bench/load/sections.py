"""Measurements without sessions: the post's script alone in Redis, and the starts of the programs of `bench/`."""

import asyncio
import re
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

from redis import Redis

from bench.load.candidates import ROOT
from bench.load.frames import BODY_BYTES
from bench.load.programs import Cores, Store
from bench.load.report import Section
from relay.redis.channel_log import ChannelLog, Retention
from relay.redis.client import RedisClient
from relay.redis.keys import Keys
from relay.redis.scripts import Script

_CHANNELS = 32
_COLUMN = "this v2"


class Program(NamedTuple):
    """A section of the page that no candidate has a part in."""

    name: str
    title: str
    measure: Callable[[Section, bool, Cores, Path], None]


class _Recorder:
    """Takes the place of the client of Redis, to know what the relay sends for a post."""

    def __init__(self) -> None:
        self.commands: list[tuple[Any, ...]] = []

    async def run(self, script: Script, keys: Sequence[str], *arguments: Any) -> bytes:
        self.commands.append(("EVALSHA", script.sha, len(keys), *keys, *arguments))
        self.script = script.text
        return b"0-0"


def script_alone(section: Section, full: bool, cores: Cores, folder: Path) -> None:
    """Run the post's script with a pipeline of 32 commands, and nothing else."""
    recorder = _Recorder()
    retention = Retention(ms=7 * 24 * 3_600_000, rows=1_000_000, group_bytes=1 << 20)
    log = ChannelLog(cast("RedisClient", recorder), Keys("bench"), retention)
    for number in range(_CHANNELS):
        asyncio.run(_append(log, f"c{number}"))
    store = Store(cores.load, folder)
    try:
        with Redis.from_url(store.url) as client:
            client.script_load(recorder.script)
            for _ in range(5 if full else 1):
                section.add(
                    _COLUMN, {"Redis CPU per post, us": _per_post(client, store, recorder, 2.0 if full else 0.1)}
                )
    finally:
        store.end()
        store.wait_for_end()


async def _append(log: ChannelLog, channel: str) -> None:
    await log.append(channel, "user/machine/session", b"x" * BODY_BYTES, version=0, fence="0")


def _per_post(client: "Redis", store: Store, recorder: _Recorder, seconds: float) -> float:
    began, end, posts = store.cpu(), time.perf_counter() + seconds, 0
    while time.perf_counter() < end:
        pipeline = client.pipeline(transaction=False)
        for command in recorder.commands:
            pipeline.execute_command(*command)  # type: ignore[no-untyped-call]  # redis-py types none of it
        posts += len(pipeline.execute())
    return (store.cpu() - began) / posts * 1e6


def starts(section: Section, full: bool, cores: Cores, folder: Path) -> None:
    """Run the programs that time the starts of commands and of a bridge, and read what they print."""
    del cores, folder
    runs = "7" if full else "1"
    for line in _output("cli_start.py", runs):
        if found := re.fullmatch(r"(\S.*?)\s+([\d.]+)\s+([\d.]+)", line):
            section.add("CPU, ms", {found[1]: float(found[2])})
            section.add("to a bare interpreter", {found[1]: float(found[3])})
    head, *rows = _output("bridge_start.py", runs)
    metrics = re.findall(r"\S+ (?:ms|MiB)", head)
    for line in rows:
        name, *figures = line.split()
        column = {"floor": "the least that speaks MCP", "bridge": "the bridge", "ratio": "ratio"}[name]
        section.add(column, {f"bridge: {metric}": float(each) for metric, each in zip(metrics, figures, strict=True)})


def _output(program: str, runs: str) -> list[str]:
    command = [sys.executable, str(ROOT / "bench" / program), "--runs", runs]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)  # noqa: S603
    return done.stdout.splitlines()


PROGRAMS = (
    Program("script", "The script of a post, alone in Redis", script_alone),
    Program("start", "Starts of commands and of the bridge, CPU and time", starts),
)
