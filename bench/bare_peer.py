"""The floor: the least that answers an MCP client over stdio with asyncio and orjson, and nothing more."""

import asyncio
import sys
from typing import Any

import orjson

REVISION = "2025-11-25"

TOOLS = [{"name": "echo", "description": "Say it again.", "inputSchema": {"type": "object", "properties": {}}}]


def answer(request: dict[str, Any]) -> dict[str, Any]:
    match request["method"]:
        case "initialize":
            return {
                "protocolVersion": REVISION,
                "capabilities": {"experimental": {"claude/channel": {}}, "tools": {"listChanged": True}},
                "serverInfo": {"name": "bare", "version": "0"},
                "instructions": "",
            }
        case "tools/list":
            return {"tools": TOOLS}
        case "tools/call":
            return {"content": [{"type": "text", "text": str(request["params"])}]}
        case _:
            return {}


async def serve() -> None:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=16 * 1024 * 1024)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    transport, protocol = await loop.connect_write_pipe(asyncio.streams.FlowControlMixin, sys.stdout)
    writer = asyncio.StreamWriter(transport, protocol, None, loop)
    while line := await reader.readline():
        request = orjson.loads(line)
        if "id" in request:
            reply = {"jsonrpc": "2.0", "id": request["id"], "result": answer(request)}
            writer.write(orjson.dumps(reply) + b"\n")
            await writer.drain()


if __name__ == "__main__":
    asyncio.run(serve())
