"""`conclave bridge`, driven by the official SDK's client. Import it in a fixture: the SDK takes seconds."""

import asyncio
import os
from pathlib import Path
from typing import Any

from mcp import ClientSession, StdioServerParameters, stdio_client
from mcp.client.extension import NotificationBinding
from mcp.types import CallToolResult, ServerNotification, TextContent, ToolListChangedNotification
from pydantic import BaseModel

from tests.support.bridge_process import REVISION, SECONDS, BridgeProcess
from tests.support.programs import CONCLAVE
from tests.support.waiting import wait_until


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
