"""A server that follows a test's script, in v2 messages over a real socket."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import WSMsgType, web

from tests.support.web_server import running_app

Json = dict[str, Any]

CLUSTER = "cluster-1"
CHALLENGE: Json = {"ev": "challenge", "nonce": "A" * 43, "cluster": CLUSTER, "node": "n1"}


class V2Connection:
    """One client that has logged in, as the server sees it."""

    def __init__(self, socket: web.WebSocketResponse) -> None:
        self.socket = socket

    async def send(self, *messages: Json) -> None:
        for message in messages:
            await self.socket.send_str(json.dumps(message))

    async def close(self, code: int, reason: str = "", event: Json | None = None) -> None:
        """Close with a code, after a `closing` event if there is one."""
        if event is not None:
            await self.send({"ev": "closing", **event})
        await self.socket.close(code=code, message=reason.encode())

    def cut(self) -> None:
        """Drop the connection without a close."""
        transport = self.socket._req.transport if self.socket._req is not None else None
        if transport is not None:
            transport.abort()


Answer2 = Callable[[V2Connection, Json], Awaitable[None]]


async def v2_acknowledge(connection: V2Connection, request: Json) -> None:
    """Answer every request with nothing but its number."""
    await connection.send({"re": request["id"]})


class V2ScriptedServer:
    """Logs every client in, then hands each request to `answer`."""

    def __init__(self) -> None:
        self.answer: Answer2 = v2_acknowledge
        self.headers: dict[str, str] = {"x-conclave-server-id": CLUSTER}
        self.challenge = CHALLENGE
        self.ready: Json = {
            "ev": "ready",
            "path": "ann/laptop/x",
            "admin": False,
            "heartbeat": 20,
            "limits": {"message_bytes": 1_000_000},
        }
        self.hellos: list[Json] = []
        self.proofs: list[Json] = []
        self.received: list[Json] = []
        self.connections: list[V2Connection] = []
        self.url = ""

    @asynccontextmanager
    async def running(self) -> AsyncIterator["V2ScriptedServer"]:
        app = web.Application()
        app.router.add_get("/", self._serve)
        async with running_app(app) as port:
            self.url = f"ws://127.0.0.1:{port}"
            try:
                yield self
            finally:
                await asyncio.gather(*(connection.socket.close() for connection in self.connections))

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse(max_msg_size=0, timeout=0.2, protocols=("conclave.v2",))
        socket.headers.update(self.headers)
        await socket.prepare(request)
        connection = V2Connection(socket)
        if not await self._log_in(connection):
            await socket.close()
            return socket
        self.connections.append(connection)
        async for message in socket:
            assert message.type is WSMsgType.TEXT, message
            asked = json.loads(message.data)
            self.received.append(asked)
            await self.answer(connection, asked)
        return socket

    async def _log_in(self, connection: V2Connection) -> bool:
        hello = await connection.socket.receive()
        if hello.type is not WSMsgType.TEXT:
            return False
        self.hellos.append(json.loads(hello.data))
        await connection.send(self.challenge)
        proof = await connection.socket.receive()
        if proof.type is not WSMsgType.TEXT:
            return False
        self.proofs.append(json.loads(proof.data))
        await connection.send(self.ready)
        return bool(self.ready["ev"] == "ready")
