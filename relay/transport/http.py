"""The HTTP routes of a node: the upgrade, liveness, readiness, metrics."""

from collections.abc import Awaitable, Callable
from typing import Protocol

from aiohttp import web

from conclave.protocol.v2 import SUBPROTOCOL
from relay.observability.metrics import CONTENT_TYPE

Serve = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Status(Protocol):
    """The state of a relay: one node, or several processes behind one port."""

    async def why_unready(self) -> str | None:
        """Return why sessions cannot be served, or None if they can."""

    async def metrics(self) -> bytes | None:
        """Return all metrics in Prometheus' text format; None if they are not available at the moment."""


def make_app(*, serve: Serve, why_closed: Callable[[], str | None], status: Status, metrics: bool) -> web.Application:
    """Build the routes of the port for clients.

    GET /         upgrades to a WebSocket, or answers 426; 503 while the node takes no sessions
    GET /health   200 as long as the process lives
    GET /ready    200 if sessions can be served, else 503 with the reason
    GET /metrics  Prometheus, if `metrics`: they have no port of their own

    `why_closed` is about this process, `status` about all processes behind the port.
    """

    async def root(request: web.Request) -> web.StreamResponse:
        if not web.WebSocketResponse(protocols=(SUBPROTOCOL,)).can_prepare(request):
            return web.Response(
                status=426,
                headers={"Upgrade": "websocket", "Connection": "Upgrade"},
                text="this is a conclave relay: connect with a WebSocket, for example `conclave status`\n",
            )
        reason = why_closed()
        if reason is not None:
            return web.Response(status=503, headers={"Retry-After": "1"}, text=f"{reason}\n")
        return await serve(request)

    app = make_status_app(status, metrics=metrics)
    app.router.add_get("/", root, allow_head=False)
    return app


def make_status_app(status: Status, *, metrics: bool = True) -> web.Application:
    """Build the routes of a port that is not for clients: those above but the first."""

    async def health(_: web.Request) -> web.Response:
        return web.Response(text="ok")

    async def ready(_: web.Request) -> web.Response:
        reason = await status.why_unready()
        if reason is None:
            return web.Response(text="ready")
        return web.Response(status=503, text=reason)

    async def render(_: web.Request) -> web.Response:
        text = await status.metrics()
        if text is None:
            return web.Response(status=503)  # an empty answer would look like a node without metrics
        return web.Response(body=text, headers={"Content-Type": CONTENT_TYPE})

    app = web.Application()
    app.router.add_get("/health", health)
    app.router.add_get("/ready", ready)
    if metrics:
        app.router.add_get("/metrics", render)
    return app


STATUS_GOODBYE_SECONDS = 2.0
"""How long the shutdown of a status port may take. A response that is still being read is then cut off."""


async def open_status_port(status: Status, host: str, port: int) -> tuple[web.AppRunner, str]:
    """Serve a status port until the runner's `cleanup`. Returns the runner and the port's address. Raises: OSError."""
    runner = web.AppRunner(
        make_status_app(status), access_log=None, handle_signals=False, shutdown_timeout=STATUS_GOODBYE_SECONDS / 2
    )
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
    except BaseException:
        await runner.cleanup()
        raise
    return runner, address_text(runner.addresses[0])


def address_text(address: tuple[str, int]) -> str:
    """Write a socket's address as HOST:PORT."""
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
