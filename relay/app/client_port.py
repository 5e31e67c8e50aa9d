"""The port for clients: the listening sockets before a node's web application."""

import asyncio
import socket
from collections.abc import Sequence
from typing import Any

from aiohttp import web

from relay.model.errors import bind_failure
from relay.transport.http import address_text
from relay.transport.pre_login import PreLoginLimiter

_BACKLOG = 1024


class ClientPort:
    """Listens at an address, or on sockets that a parent process has bound.

    Each connection is limited in bytes and time until it has logged in.
    """

    def __init__(self, app: web.Application, host: str, port: int, sockets: Sequence[socket.socket]) -> None:
        self._app = app
        self._host = host
        self._port = port
        self._sockets = sockets
        self._servers: list[asyncio.Server] = []
        self._runner: web.AppRunner | None = None

    async def listen(self, *, shutdown_timeout: float) -> str:
        """Accept connections and return the address as HOST:PORT.

        `shutdown_timeout` is how long `close` waits for connections to end, in seconds.

        Raises:
            NodeFailure: the address is in use or does not exist.
        """
        self._runner = web.AppRunner(
            self._app, access_log=None, handle_signals=False, shutdown_timeout=shutdown_timeout
        )
        await self._runner.setup()
        make_handler = self._runner.server
        assert make_handler is not None  # noqa: S101 - setup made it
        targets: list[dict[str, Any]] = [{"sock": each} for each in self._sockets]
        loop = asyncio.get_running_loop()
        try:
            for target in targets or [{"host": self._host, "port": self._port}]:
                server = await loop.create_server(lambda: PreLoginLimiter(make_handler()), **target, backlog=_BACKLOG)
                self._servers.append(server)
        except OSError as error:
            raise bind_failure(self._host, self._port, error) from error
        return address_text(self._servers[0].sockets[0].getsockname())

    def stop_listening(self) -> None:
        """Refuse new connections; the open ones stay. May be called again."""
        for server in self._servers:
            server.close()

    async def close(self) -> None:
        """End all connections; those that do not end in time are cut."""
        if self._runner is not None:
            await self._runner.cleanup()
