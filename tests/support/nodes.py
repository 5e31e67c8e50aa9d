"""Relay nodes for tests: in this process, and as processes of their own."""

import asyncio
import os
import re
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp

from relay.app.config import NodeConfig, RedisUrl
from relay.app.node import Node
from relay.redis import connect
from relay.redis.client import RedisClient
from relay.redis.connect import Make
from relay.services.server_admins import ServerAdmins
from tests.support.programs import DEVNULL, PIPE, Process, fork, launch
from tests.support.waiting import wait_until


@asynccontextmanager
async def node_object(
    redis_url: str, *, make: Make | None = None, read_url: str | None = None, **settings: Any
) -> AsyncIterator[Node]:
    """Run a node on this event loop, for tests that reach inside."""
    settings.setdefault("admins", ServerAdmins({}))
    settings.setdefault("port", 0)
    config = NodeConfig(host="127.0.0.1", store=RedisUrl(redis_url, read_url), **settings)
    near = None if read_url is None else connect.real(read_url)
    node = Node(config, make or connect.store(redis_url), near)
    running = asyncio.create_task(node.run())
    try:
        await wait_until(lambda: running.done() or node.is_ready, what="the node is ready")
        if running.done():
            await running
        yield node
    finally:
        node.stop()
        await running


def client_of(node: Node) -> RedisClient:
    """Return the client of a node whose store is one server."""
    client = node.parts.client
    assert isinstance(client, RedisClient)
    return client


@asynccontextmanager
async def running_node(redis_url: str, **settings: Any) -> AsyncIterator[str]:
    """Run a node on this event loop; yields its ws:// URL."""
    async with node_object(redis_url, **settings) as node:
        yield f"ws://{node.address}/"


def resident_bytes(pid: int) -> int:
    """Return the resident memory of a process in bytes; Linux only."""
    statm = Path(f"/proc/{pid}/statm").read_text()
    return int(statm.split()[1]) * os.sysconf("SC_PAGE_SIZE")


class NodeProcess:
    """`conclave serve` as a process: forked, or with `installed` as its user starts it, or as another program."""

    def __init__(
        self,
        *arguments: str,
        environment: dict[str, str] | None = None,
        installed: bool = False,
        program: Sequence[str] = (),
    ) -> None:
        self._arguments = arguments
        self._environment = environment or {}
        self._launch: Callable[..., Awaitable[Process]] = launch if installed else fork
        if program:
            self._launch = partial(launch, program=program)
        self._process: Process | None = None
        self._logging: asyncio.Task[None] | None = None
        self.log: list[str] = []
        self.address = ""

    @property
    def url(self) -> str:
        return f"ws://{self.address}/"

    @property
    def host_and_port(self) -> tuple[str, int]:
        """The address, for tests that connect to it themselves."""
        host, _, port = self.address.rpartition(":")
        return host, int(port)

    @property
    def pid(self) -> int:
        assert self._process is not None, "the node was not started"
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    def resident_bytes(self) -> int:
        """Return the resident memory of the process in bytes."""
        return resident_bytes(self.pid)

    async def start(self) -> None:
        """Start, and return once sessions are served. A restart keeps the address."""
        self.log.clear()
        self._process = await self._launch(
            *("serve", "--bind", self.address or "127.0.0.1:0", *self._arguments),
            stdin=DEVNULL,
            stderr=PIPE,
            start_new_session=True,
            env={**_environment(), **self._environment},
        )
        self._logging = asyncio.create_task(self._read_log(self._process))
        await wait_until(
            lambda: self._has_logged("server listening") and self.address, timeout=30, what="the node listens"
        )

    def _has_logged(self, words: str) -> bool:
        assert self._process is not None
        if self._process.returncode is not None:
            raise AssertionError(f"the node ended with {self._process.returncode}:\n" + "\n".join(self.log[-20:]))
        return any(words in line for line in self.log)

    async def _read_log(self, process: Process) -> None:
        assert process.stderr is not None
        async for raw in process.stderr:
            line = raw.decode(errors="replace").rstrip()
            self.log.append(line)
            if found := re.search(r"""server listening.*?addr(?:=|": ?)["']([^"']+)["']""", line):
                self.address = found[1]

    async def kill(self) -> None:
        """SIGKILL."""
        await self._end(signal.SIGKILL)

    async def stop(self) -> int:
        """SIGTERM, and the exit code."""
        return await self._end(signal.SIGTERM)

    async def press_ctrl_c(self) -> int:
        """SIGINT to the whole process group, as a terminal sends it, and the exit code."""
        os.killpg(self.pid, signal.SIGINT)
        return await self._end(signal.SIGINT)

    async def run_in_vain(self) -> int:
        """Start a node that is expected to end by itself; returns its exit code. Its output is in `log`."""
        try:
            await self.start()
        except AssertionError:
            assert self._process is not None
            if self._process.returncode is None:
                raise
        else:
            raise AssertionError("the node runs")
        assert self._logging is not None
        await self._logging
        assert self._process.returncode is not None
        return self._process.returncode

    async def _end(self, number: signal.Signals) -> int:
        assert self._process is not None
        if self._process.returncode is None:
            self._process.send_signal(number)
        async with asyncio.timeout(30):
            code = await self._process.wait()
        if self._logging is not None:
            await self._logging
        return code

    def pause(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    async def status(self, path: str) -> int:
        """GET a path and return the status."""
        async with aiohttp.ClientSession() as http, http.get(f"http://{self.address}{path}") as response:
            return response.status

    async def text(self, path: str) -> str:
        """GET a path and return the body."""
        async with aiohttp.ClientSession() as http, http.get(f"http://{self.address}{path}") as response:
            return await response.text()

    async def close(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self.resume()
            await self.kill()


@asynccontextmanager
async def cluster(redis_url: str, size: int = 3, *arguments: str) -> AsyncIterator[list[NodeProcess]]:
    """Run some nodes on one Redis."""
    nodes = [NodeProcess("--redis-url", redis_url, *arguments) for _ in range(size)]
    try:
        await asyncio.gather(*(node.start() for node in nodes))
        yield nodes
    finally:
        await asyncio.gather(*(node.close() for node in nodes))


def _environment() -> dict[str, str]:
    """The environment of this process without settings, and with a drain that takes no time."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("CONCLAVE_")}
    return {**clean, "CONCLAVE_DRAIN_DELAY": "0", "CONCLAVE_DRAIN_SECONDS": "0"}
