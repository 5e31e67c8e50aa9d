"""The bridge's MCP side alone: one tool, no servers."""

import asyncio
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from bridge.mcp import stdio
from bridge.mcp.protocol import Outlet, ToolResult


class Echo:
    def __init__(self, _: Outlet) -> None:
        pass

    def listed(self) -> list[dict[str, Any]]:
        return [{"name": "echo", "description": "Say it again.", "inputSchema": {"type": "object", "properties": {}}}]

    async def call(self, name: str, arguments: dict[str, Any]) -> ToolResult:
        return ToolResult(f"{name} {arguments}")


if __name__ == "__main__":
    sys.exit(stdio.run(Echo, instructions="", on_ready=asyncio.Event().wait))
