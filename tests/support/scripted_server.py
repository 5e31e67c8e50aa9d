"""A server that follows a test's script, in v1 frames over a real socket."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from aiohttp import WSMsgType, web
from aiohttp.typedefs import Middleware
from multidict import CIMultiDict

from conclave.model import SessionPath
from conclave.protocol.v1 import decode, encode
from conclave.protocol.v1.frames import (
    Ack,
    Auth,
    Challenge,
    Error,
    Established,
    Frame,
    Hello,
    Ping,
    Pong,
    ProtocolError,
    Register,
    ServerInfo,
)
from tests.support.web_server import running_app


class Connection:
    """One client that has logged in, as the server sees it."""

    def __init__(self, socket: web.WebSocketResponse, path: SessionPath) -> None:
        self.socket = socket
        self.path = path

    async def send(self, *frames: Frame) -> None:
        for frame in frames:
            await self.socket.send_bytes(encode(frame))

    async def kill(self, error: ProtocolError) -> None:
        await self.send(Error(error))
        await self.socket.close()

    async def close_without_a_word(self) -> None:
        """Close as the original does when it cannot read a request: a close frame with nothing in it."""
        assert self.socket._writer is not None
        await self.socket._writer.send_frame(b"", WSMsgType.CLOSE)

    def cut(self) -> None:
        """Drop the connection without a close."""
        transport = self.socket._req.transport if self.socket._req is not None else None
        if transport is not None:
            transport.abort()


Answer = Callable[[Connection, Frame], Awaitable[None]]


async def acknowledge(connection: Connection, frame: Frame) -> None:
    """Answer every request with a bare Ack."""
    await connection.send(Pong() if isinstance(frame, Ping) else Ack())


class ScriptedServer:
    """Logs every client in as `user/machine/` and its own handle, then hands each frame to `answer`."""

    def __init__(self) -> None:
        self.answer: Answer = acknowledge
        self.headers: CIMultiDict[str] = CIMultiDict()
        self.owner = ("ann", "laptop")
        self.refuse: list[ProtocolError] = []
        self.instead_of_challenge: bytes | None = None
        self.silent = False
        self.early: list[Frame] = []
        self.admin = False
        self.connections: list[Connection] = []
        self.received: list[Frame] = []
        self.left_early: list[bool] = []
        """For each client that left before its first frame: True if it closed the connection properly."""
        self.middlewares: list[Middleware] = []
        self.url = ""

    @asynccontextmanager
    async def running(self, tls: ssl.SSLContext | None = None) -> AsyncIterator["ScriptedServer"]:
        app = web.Application(middlewares=self.middlewares)
        app.router.add_get("/", self._serve)
        app.router.add_get("/elsewhere", self._redirect)
        app.router.add_get("/starting", self._unready)
        async with running_app(app, tls) as port:
            self.url = f"{'ws' if tls is None else 'wss'}://127.0.0.1:{port}"
            try:
                yield self
            finally:
                await asyncio.gather(*(connection.socket.close() for connection in self.connections))

    async def _unready(self, _: web.Request) -> web.Response:
        return web.Response(status=503)

    async def _redirect(self, _: web.Request) -> web.StreamResponse:
        raise web.HTTPFound("/")

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse(max_msg_size=0, timeout=0.2)
        socket.headers.extend(self.headers)
        await socket.prepare(request)
        connection = await self._log_in(socket)
        if connection is None:
            await socket.close()
            return socket
        self.connections.append(connection)
        async for message in socket:
            if message.type is WSMsgType.BINARY:
                frame = decode(message.data)
                self.received.append(frame)
                await self.answer(connection, frame)
        return socket

    async def _log_in(self, socket: web.WebSocketResponse) -> Connection | None:
        first = await socket.receive()
        if first.type is not WSMsgType.BINARY:
            self.left_early.append(first.type is WSMsgType.CLOSE)
            return None
        hello = decode(first.data)
        assert isinstance(hello, Hello)
        if self.silent:
            await socket.receive()
            return None
        if self.instead_of_challenge is not None:
            await socket.send_bytes(self.instead_of_challenge)
            return None
        await socket.send_bytes(encode(Challenge(b"nonce")))
        proof = decode(await socket.receive_bytes())
        user, machine = self.owner
        if isinstance(proof, Register):
            user, machine = proof.username, proof.machine
            proof = decode(await socket.receive_bytes())
        assert isinstance(proof, Auth)
        if self.refuse:
            await socket.send_bytes(encode(Error(self.refuse.pop(0))))
            return None
        connection = Connection(socket, SessionPath(user, machine, hello.session))
        await connection.send(*self.early, Established(connection.path), ServerInfo(self.admin))
        return connection
