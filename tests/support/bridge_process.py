"""`conclave bridge` as Claude Code runs it: a child process, and two clients that drive it.

One writes and reads raw lines; the other is the official SDK's, somebody else's reading of the protocol. Both have the
interface of `BridgeProcess`, so that one test is about both.
"""

import asyncio
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import orjson
from mcp import ClientSession, StdioServerParameters, stdio_client
from mcp.client.extension import NotificationBinding
from mcp.types import CallToolResult, ServerNotification, TextContent, ToolListChangedNotification
from pydantic import BaseModel

from conclave.client.link import connect
from conclave.machine.config import Registration
from conclave.machine.config_edit import register
from conclave.machine.keys import create_or_load
from conclave.machine.locations import CONFIG_NAME, KEY_NAME
from tests.support.nodes import resident_bytes
from tests.support.programs import CONCLAVE, PIPE, Process, fork, launch
from tests.support.waiting import wait_until

SECONDS = 30.0

REVISION = "2025-11-25"


class BridgeProcess(ABC):
    """One bridge. Its output is checked against the protocol, and kept."""

    def __init__(self, home: Path, *arguments: str, directory: Path | None = None) -> None:
        """`home` is its configuration directory, `directory` where it is started."""
        self._arguments = ["--config-dir", str(home), "bridge", *arguments]
        self._directory = directory or home
        self.events: list[dict[str, Any]] = []
        """The parameters of the channel notifications."""
        self.lists_changed = 0

    async def __aenter__(self) -> Self:
        await self._start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.end()

    @abstractmethod
    async def _start(self) -> None:
        """Start the process, and go through the protocol's greeting."""

    @abstractmethod
    async def end(self) -> int:
        """Close its standard input and return its exit code; again, the same."""

    @abstractmethod
    async def attempt(self, name_: str, **arguments: Any) -> tuple[str, bool]:
        """Call a tool; return its text, and whether it failed."""

    @abstractmethod
    async def tools(self) -> list[str]:
        """Return the names of the tools that are offered."""

    async def tool(self, name_: str, **arguments: Any) -> str:
        """Call a tool that has to succeed; return its text."""
        text, failed = await self.attempt(name_, **arguments)
        assert not failed, text
        return text

    async def refused(self, name_: str, **arguments: Any) -> str:
        """Call a tool that has to fail; return its text."""
        text, failed = await self.attempt(name_, **arguments)
        assert failed, text
        return text

    def events_with(self, text: str) -> list[dict[str, Any]]:
        """Return the events with this text in them."""
        return [event for event in self.events if text in event["content"]]

    async def wait_for_event(self, text: str) -> dict[str, Any]:
        """Wait for the first event with this text in it."""
        await wait_until(lambda: bool(self.events_with(text)), what=f"an event says {text!r}")
        return self.events_with(text)[0]


class RawBridge(BridgeProcess):
    """Driven with raw lines. Every line that it writes has to be one JSON-RPC message."""

    def __init__(self, home: Path, *arguments: str, directory: Path | None = None, installed: bool = False) -> None:
        """An `installed` bridge has imported what it needs and nothing else, unlike one that is forked."""
        super().__init__(home, *arguments, directory=directory)
        self._installed = installed
        self._process: Process | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._last_id = 0
        self.longest_line = 0
        """The bytes of the longest line that it wrote."""
        self.log: list[str] = []

    def resident_bytes(self) -> int:
        """Return the resident memory of the process in bytes."""
        assert self._process is not None
        return resident_bytes(self._process.pid)

    def most_resident_bytes(self) -> int:
        """Return the greatest resident memory that the process ever had."""
        assert self._process is not None
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        return int(status.partition("VmHWM:")[2].split(maxsplit=1)[0]) * 1024

    async def _start(self) -> None:
        start: Callable[..., Awaitable[Process]] = launch if self._installed else fork
        self._process = await start(
            *self._arguments, cwd=self._directory, stdin=PIPE, stdout=PIPE, stderr=PIPE, limit=64 * 1024 * 1024
        )
        self._tasks = [asyncio.create_task(self._read()), asyncio.create_task(self._read_log())]
        await self.request("initialize", {"protocolVersion": REVISION})
        self._write({"method": "notifications/initialized"})

    async def end(self) -> int:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.close()
        async with asyncio.timeout(SECONDS):
            code = await self._process.wait()
            await asyncio.gather(*self._tasks)
        return code

    async def attempt(self, name_: str, **arguments: Any) -> tuple[str, bool]:
        result = await self.request("tools/call", {"name": name_, "arguments": arguments})
        (content,) = result["content"]
        return content["text"], result.get("isError", False)

    async def tools(self) -> list[str]:
        return [tool["name"] for tool in (await self.request("tools/list"))["tools"]]

    async def request(self, method: str, params: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the result of a request."""
        self._last_id += 1
        answer = self._answers[self._last_id] = asyncio.get_running_loop().create_future()
        self._write({"id": self._last_id, "method": method, "params": params or {}})
        async with asyncio.timeout(SECONDS):
            message = await answer
        assert "result" in message, message
        result: dict[str, Any] = message["result"]
        return result

    def begin(self, name_: str, **arguments: Any) -> int:
        """Call a tool and return the number of the call, which `give_up` takes."""
        self._last_id += 1
        self._write({"id": self._last_id, "method": "tools/call", "params": {"name": name_, "arguments": arguments}})
        return self._last_id

    def give_up(self, number: int) -> None:
        """Cancel a call; an answer to it would be a fault."""
        self._write({"method": "notifications/cancelled", "params": {"requestId": number}})

    def _write(self, message: dict[str, Any]) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")

    async def _read(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            self.longest_line = max(self.longest_line, len(line))
            message = orjson.loads(line)  # strict: no NaN, no lone surrogate, nothing behind it
            assert message["jsonrpc"] == "2.0"
            if "id" in message:
                assert message.keys() == {"jsonrpc", "id", "result"}
                self._answers.pop(message["id"]).set_result(message)
            elif message["method"] == "notifications/claude/channel":
                assert message.keys() == {"jsonrpc", "method", "params"}
                self.events.append(message["params"])
            else:
                assert message["method"] == "notifications/tools/list_changed"
                self.lists_changed += 1

    async def _read_log(self) -> None:
        assert self._process is not None
        assert self._process.stderr is not None
        async for line in self._process.stderr:
            self.log.append(line.decode(errors="replace").rstrip())


class ChannelEvent(BaseModel):
    """The parameters of an event as Claude Code knows them."""

    content: str
    meta: dict[str, str]


class SdkBridge(BridgeProcess):
    """Driven by the official SDK's client, which validates all that it reads."""

    def __init__(self, home: Path, *arguments: str, directory: Path | None = None) -> None:
        super().__init__(home, *arguments, directory=directory)
        self._code = home / f"exit-{id(self)}"
        self._errors = home / f"stderr-{id(self)}"
        self._faults: list[object] = []
        self._ending = asyncio.Event()
        self._session: ClientSession | None = None
        self._task: asyncio.Task[None] | None = None

    async def _start(self) -> None:
        # The SDK's contexts belong to the task that enters them, and a test ends bridges in any order.
        self._task = asyncio.create_task(self._run())
        await wait_until(lambda: self._session or (self._task and self._task.done()), timeout=SECONDS)
        if self._session is None:
            await self._task

    async def _run(self) -> None:
        # It does not tell the exit code of what it started, so a shell in between does.
        parameters = StdioServerParameters(
            command="/bin/sh",
            args=["-c", '"$@"; echo $? > "$EXIT_CODE"', "sh", str(CONCLAVE), *self._arguments],
            env={**os.environ, "EXIT_CODE": str(self._code)},
            cwd=self._directory,
        )
        binding = NotificationBinding(
            method="notifications/claude/channel", params_type=ChannelEvent, handler=self._channel
        )
        with self._errors.open("w") as errors:
            async with (
                stdio_client(parameters, errlog=errors) as (read, write),
                ClientSession(read, write, message_handler=self._other, notification_bindings=[binding]) as session,
            ):
                greeting = await session.initialize()
                assert greeting.protocol_version == REVISION
                self._session = session
                await self._ending.wait()

    async def end(self) -> int:
        assert self._task is not None
        self._ending.set()
        async with asyncio.timeout(SECONDS):
            await self._task
        assert not self._faults
        return int(self._code.read_text())

    async def attempt(self, name_: str, **arguments: Any) -> tuple[str, bool]:
        assert self._session is not None
        result = await self._session.call_tool(name_, arguments, read_timeout_seconds=SECONDS)
        assert isinstance(result, CallToolResult)
        (content,) = result.content
        assert isinstance(content, TextContent)
        return content.text, bool(result.is_error)

    async def tools(self) -> list[str]:
        assert self._session is not None
        return [tool.name for tool in (await self._session.list_tools()).tools]

    async def _channel(self, event: ChannelEvent) -> None:
        self.events.append(event.model_dump())

    async def _other(self, message: ServerNotification | Exception) -> None:
        if isinstance(message, ToolListChangedNotification):
            self.lists_changed += 1
        else:
            self._faults.append(message)


async def configure_home(home: Path, user: str, url: str, *more_urls: str) -> None:
    """Register a new user at a server; `more_urls` are configured as well, without asking there."""
    key = create_or_load(home / KEY_NAME)
    async with await connect(url, key, "registering", register=(user, "laptop")):
        pass
    for known in (url, *more_urls):
        register(home / CONFIG_NAME, Registration(known, user, "laptop"))
