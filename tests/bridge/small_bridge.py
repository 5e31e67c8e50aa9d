"""A bridge without servers, for tests of its stdio side: `python -m tests.bridge.small_bridge [MODE]`.

Whatever it says about itself goes to stderr.
"""

import asyncio
import atexit
import contextlib
import os
import subprocess
import sys
import time
from typing import Any, Final

from bridge.mcp import stdio
from bridge.mcp.protocol import Outlet, ToolResult
from conclave.errors import ConclaveError

INSTRUCTIONS: Final = "Say something with echo."
SILENT: Final = asyncio.Event  # one that nobody sets


def say(text: str) -> None:
    if sys.stderr is not None:  # there may be none
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()


class SmallTools:
    """Tools by name, each a method."""

    def __init__(self, outlet: Outlet) -> None:
        self._outlet = outlet
        if mode() == "early":
            for number in range(3):
                outlet.push(f"early {number}", {"kind": "link"})

    def listed(self) -> list[dict[str, Any]]:
        schema = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}
        return [{"name": "echo", "description": "Say it again.", "inputSchema": schema}]

    async def call(self, name: str, arguments: dict[str, Any]) -> ToolResult:
        say(f"call {name}")
        try:
            answer: ToolResult = await getattr(self, f"_{name}")(arguments)
        except asyncio.CancelledError:
            say(f"cancelled {name}")
            raise
        return answer

    async def _echo(self, arguments: dict[str, Any]) -> ToolResult:
        return ToolResult(str(arguments["text"]))

    async def _repeat(self, arguments: dict[str, Any]) -> ToolResult:
        return ToolResult("x" * int(arguments["size"]))

    async def _push(self, arguments: dict[str, Any]) -> ToolResult:
        for number in range(int(arguments["count"])):
            self._outlet.push(f"{number}" + "." * int(arguments.get("size", 0)), {"kind": "channel"})
        self._outlet.tools_changed()
        return ToolResult("pushed")

    async def _wait(self, _: dict[str, Any]) -> ToolResult:
        await SILENT().wait()
        return ToolResult("never")

    async def _soon(self, _: dict[str, Any]) -> ToolResult:
        await asyncio.sleep(0.05)
        return ToolResult("done in time")

    async def _stubborn(self, _: dict[str, Any]) -> ToolResult:
        while True:
            with contextlib.suppress(asyncio.CancelledError):
                await SILENT().wait()

    async def _executor(self, _: dict[str, Any]) -> ToolResult:
        """As looking up a name does when no name server answers."""
        await asyncio.to_thread(time.sleep, 600)
        return ToolResult("never")

    async def _give_up(self, _: dict[str, Any]) -> ToolResult:
        raise asyncio.CancelledError

    async def _print(self, _: dict[str, Any]) -> ToolResult:
        print("stray print")  # noqa: T201 - what must not reach the client
        os.write(1, b"stray write\n")
        subprocess.run(["/bin/echo", "stray child"], check=True)  # noqa: ASYNC221 - as before
        eaten = subprocess.run(["/bin/cat"], check=True, capture_output=True, timeout=10, stdin=None).stdout  # noqa: ASYNC221
        return ToolResult(f"printed; a child read {len(eaten)} bytes")


def mode() -> str:
    return sys.argv[1] if len(sys.argv) > 1 else ""


async def on_ready() -> None:
    say("ready")
    if mode() == "fails":
        raise RuntimeError("it cannot be")
    if mode() == "refuses":
        raise ConclaveError("no known server")
    try:
        await SILENT().wait()
    finally:
        say("ready cancelled")


if __name__ == "__main__":
    atexit.register(say, "orderly end")
    sys.exit(stdio.run(SmallTools, instructions=INSTRUCTIONS, on_ready=on_ready))
