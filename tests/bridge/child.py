"""The small bridge as a child process, and its client."""

import asyncio
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import orjson

PROGRAM: Final = Path(__file__).with_name("small_bridge.py")

SECONDS: Final = 15
"""The bound of every wait; a test that reaches it has failed."""

INITIALIZE: Final[dict[str, Any]] = {
    "method": "initialize",
    "params": {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "test", "version": "0"}},
}


def line(id_: str | int | None, method: str, params: Any = None) -> bytes:
    """Write a request, or a notification if the id is None."""
    message: dict[str, Any] = {"jsonrpc": "2.0", "method": method}
    if id_ is not None:
        message["id"] = id_
    if params is not None:
        message["params"] = params
    return orjson.dumps(message) + b"\n"


def call(id_: str | int, name: str, **arguments: Any) -> bytes:
    return line(id_, "tools/call", {"name": name, "arguments": arguments})


def text_of(answer: Any) -> str:
    """Return the text of a tool's answer."""
    text = answer["result"]["content"][0]["text"]
    assert isinstance(text, str)
    return text


class Child:
    """One process. Its stderr goes to a file, so that nothing waits for us to read it."""

    def __init__(self, process: Process, errors: Path) -> None:
        self.process = process
        self._errors = errors

    @property
    def errors(self) -> str:
        return self._errors.read_text()

    def write(self, *lines: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(b"".join(lines))

    def close(self) -> None:
        """End its stdin."""
        assert self.process.stdin is not None
        self.process.stdin.close()

    async def read(self) -> Any:
        """Return the next line; None at the end."""
        assert self.process.stdout is not None
        async with asyncio.timeout(SECONDS):
            received = await self.process.stdout.readline()
        return orjson.loads(received) if received else None

    async def read_to_end(self) -> list[Any]:
        lines = []
        while (received := await self.read()) is not None:
            lines.append(received)
        return lines

    async def ask(self, request: bytes) -> Any:
        """Send a request and return the next line."""
        self.write(request)
        return await self.read()

    async def begin(self) -> None:
        answer = await self.ask(line(0, **INITIALIZE))
        assert answer["id"] == 0
        self.write(line(None, "notifications/initialized"))

    async def end(self) -> int:
        """Wait for the process to end by itself."""
        async with asyncio.timeout(SECONDS):
            return await self.process.wait()

    def most_resident_kib(self) -> int:
        """Return the greatest resident memory that the process ever had."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition("VmHWM:")[2].split(maxsplit=1)[0])


@asynccontextmanager
async def started(directory: Path, mode: str = "", *, stdin: int = PIPE, stdout: int = PIPE) -> AsyncIterator[Child]:
    """Run the small bridge; the streams may be descriptors, which stay the caller's."""
    errors = directory / "stderr"
    env = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with errors.open("wb") as file:
        process = await asyncio.create_subprocess_exec(
            sys.executable, str(PROGRAM), mode, stdin=stdin, stdout=stdout, stderr=file, env=env, limit=1 << 26
        )
    try:
        yield Child(process, errors)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@asynccontextmanager
async def reading(descriptor: int) -> AsyncIterator[asyncio.StreamReader]:
    """Read a descriptor of ours; it is closed at the end."""
    reader = asyncio.StreamReader(limit=1 << 26)
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(descriptor, "rb", buffering=0)
    )
    try:
        yield reader
    finally:
        transport.close()
