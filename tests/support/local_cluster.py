"""`conclave cluster` as its user starts it."""

import asyncio
import os
import re
import signal
import uuid
from pathlib import Path
from typing import Self

from tests.support.ports import free_ports
from tests.support.programs import CONCLAVE
from tests.support.waiting import wait_until


class LocalCluster:
    """A cluster in a process group of its own, which gets Ctrl-C as in a terminal."""

    def __init__(self, data_dir: Path, nodes: int = 3, **environment: str) -> None:
        self.data_dir = data_dir
        self.port = free_ports(nodes + 1)
        self.out: list[str] = []
        self.err: list[str] = []
        self._nodes = nodes
        self._mark = f"CONCLAVE_TEST_MARK={uuid.uuid4()}"
        self._environment = dict([self._mark.split("=")], **environment)
        self._process: asyncio.subprocess.Process
        self._reading: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        """Start it; wait for `serving` or for `end`."""
        self._process = await asyncio.create_subprocess_exec(
            *(str(CONCLAVE), "cluster", "--nodes", str(self._nodes)),
            *("--bind", f"127.0.0.1:{self.port}", "--data-dir", str(self.data_dir)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
            env={**os.environ, "PYTHONUTF8": "1", **self._environment},
        )
        self._reading = [
            asyncio.create_task(_read(self._process.stdout, self.out)),
            asyncio.create_task(_read(self._process.stderr, self.err)),
        ]
        return self

    async def __aexit__(self, *_: object) -> None:
        for pid in self.processes:
            os.kill(pid, signal.SIGKILL)
        await self.end()

    @property
    def url(self) -> str:
        """The one URL, as it is printed."""
        return self._printed(r"clients connect to (\S+)")

    @property
    def addresses(self) -> list[str]:
        return [f"127.0.0.1:{self.port + number}" for number in range(1, self._nodes + 1)]

    @property
    def processes(self) -> list[int]:
        """All processes that it started, directly or not, with any present parent; Linux only."""
        marked = [int(path.parent.name) for path in Path("/proc").glob("[0-9]*/environ") if self._mark in _text(path)]
        store = _text(self.data_dir / "server.lock").strip()  # it writes its title over its environment
        return [*marked, int(store)] if store and _text(Path("/proc", store, "cmdline")) else marked

    def pid(self, node: int) -> int:
        """A node's process, as it is printed; nodes are counted from 1."""
        return int(self._printed(rf"node {node} .* process (\d+)"))

    async def serving(self) -> None:
        def started() -> bool:
            assert self._process.returncode is None, self.err
            return any("Ctrl-C" in line for line in self.out)

        await wait_until(started, timeout=40, what="the cluster serves")

    def signal(self, number: signal.Signals) -> None:
        """As a terminal sends it: to the whole process group."""
        os.killpg(self._process.pid, number)

    def kill(self) -> None:
        """SIGKILL to the process that started the others, and to no other."""
        self._process.kill()

    async def end(self) -> int:
        """Wait for its end, and return its exit code."""
        async with asyncio.timeout(40):
            code = await self._process.wait()
            await asyncio.gather(*self._reading)
        return code

    def _printed(self, pattern: str) -> str:
        found = re.search(pattern, "\n".join(self.out))
        assert found is not None, self.out
        return found[1]


async def _read(stream: asyncio.StreamReader | None, into: list[str]) -> None:
    assert stream is not None
    while line := await stream.readline():
        into.append(line.decode().rstrip())


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
