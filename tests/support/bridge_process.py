"""`conclave bridge` as Claude Code runs it: a child process, driven with raw lines."""

import asyncio
import json
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from conclave.config import CONFIG_NAME, KEY_NAME, Registration
from conclave.config_edit import register
from conclave.keys import create_or_load
from conclave.link import connect
from tests.support.nodes import CONCLAVE, resident_bytes
from tests.support.waiting import wait_until

SECONDS = 30.0


class BridgeProcess:
    """One bridge. Every line that it writes has to be one JSON-RPC message; all are kept."""

    def __init__(self, home: Path, *arguments: str, directory: Path | None = None) -> None:
        """`home` is its configuration directory, `directory` where it is started."""
        self._command = [str(CONCLAVE), "--config-dir", str(home), "bridge", *arguments]
        self._directory = directory or home
        self._process: asyncio.subprocess.Process | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._last_id = 0
        self.events: list[dict[str, Any]] = []
        """The parameters of the channel notifications."""
        self.lists_changed = 0
        self.log: list[str] = []

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            *self._command,
            cwd=self._directory,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=64 * 1024 * 1024,
        )
        self._tasks = [asyncio.create_task(self._read()), asyncio.create_task(self._read_log())]
        await self.request("initialize", {"protocolVersion": "2025-11-25"})
        self._write({"method": "notifications/initialized"})
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.end()

    async def end(self) -> int:
        """Close its standard input and return its exit code."""
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.close()
        async with asyncio.timeout(SECONDS):
            code = await self._process.wait()
            await asyncio.gather(*self._tasks)
        return code

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

    async def attempt(self, name_: str, **arguments: Any) -> tuple[str, bool]:
        result = await self.request("tools/call", {"name": name_, "arguments": arguments})
        (content,) = result["content"]
        return content["text"], result.get("isError", False)

    def resident_bytes(self) -> int:
        """What the process occupies in memory."""
        assert self._process is not None
        return resident_bytes(self._process.pid)

    async def tools(self) -> list[str]:
        return [tool["name"] for tool in (await self.request("tools/list"))["tools"]]

    def said(self, text: str) -> list[dict[str, Any]]:
        """Return the events with this text in them."""
        return [event for event in self.events if text in event["content"]]

    async def hear(self, text: str) -> dict[str, Any]:
        """Wait for the first event with this text in it."""
        await wait_until(lambda: bool(self.said(text)), what=f"an event says {text!r}")
        return self.said(text)[0]

    def _write(self, message: dict[str, Any]) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")

    async def _read(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            message = json.loads(line.decode())
            assert message["jsonrpc"] == "2.0"
            if "id" in message:
                self._answers.pop(message["id"]).set_result(message)
            elif message["method"] == "notifications/claude/channel":
                self.events.append(message["params"])
            else:
                assert message["method"] == "notifications/tools/list_changed"
                self.lists_changed += 1

    async def _read_log(self) -> None:
        assert self._process is not None
        assert self._process.stderr is not None
        async for line in self._process.stderr:
            self.log.append(line.decode(errors="replace").rstrip())


async def settle_in(home: Path, user: str, url: str, *more_urls: str) -> None:
    """Register a new user at a server; `more_urls` are configured as well, without asking there."""
    key = create_or_load(home / KEY_NAME)
    async with await connect(url, key, "registering", register=(user, "laptop")):
        pass
    for known in (url, *more_urls):
        register(home / CONFIG_NAME, Registration(known, user, "laptop"))
