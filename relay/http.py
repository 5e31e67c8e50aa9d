"""The node's HTTP side: the upgrade, liveness, readiness, metrics."""

from collections.abc import Awaitable, Callable

from aiohttp import web

from conclave.v2 import SUBPROTOCOL

Serve = Callable[[web.Request], Awaitable[web.StreamResponse]]


def make_app(*, serve: Serve, why_unready: Callable[[], str | None], metrics: Callable[[], bytes]) -> web.Application:
    """Build the routes.

    GET /         upgrades to a WebSocket, or answers 426; 503 while the node is not ready for sessions
    GET /health   200 as long as the process lives
    GET /ready    200 if sessions can be served, else 503 with the reason
    GET /metrics  Prometheus
    """

    async def root(request: web.Request) -> web.StreamResponse:
        if not web.WebSocketResponse(protocols=(SUBPROTOCOL,)).can_prepare(request):
            return web.Response(
                status=426,
                headers={"Upgrade": "websocket", "Connection": "Upgrade"},
                text="this is a conclave relay: connect with a WebSocket, for example `conclave status`\n",
            )
        reason = why_unready()
        if reason is not None:
            return web.Response(status=503, headers={"Retry-After": "1"}, text=f"{reason}\n")
        return await serve(request)

    async def health(_: web.Request) -> web.Response:
        return web.Response(text="ok")

    async def ready(_: web.Request) -> web.Response:
        reason = why_unready()
        if reason is None:
            return web.Response(text="ready")
        return web.Response(status=503, text=reason)

    async def render(_: web.Request) -> web.Response:
        return web.Response(body=metrics(), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})

    app = web.Application()
    app.router.add_get("/", root, allow_head=False)
    app.router.add_get("/health", health)
    app.router.add_get("/ready", ready)
    app.router.add_get("/metrics", render)
    return app
