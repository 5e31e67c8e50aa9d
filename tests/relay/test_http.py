"""The node's HTTP side, without a node."""

import pytest
from aiohttp import ClientResponse, web
from aiohttp.test_utils import TestClient
from pytest_aiohttp.plugin import AiohttpClient

from relay.transport.http import make_app

Client = TestClient[web.Request, web.Application]


class Stub:
    """The collaborators of the routes: a readiness to set, and a session that sends one message and closes."""

    def __init__(self) -> None:
        self.reason: str | None = None
        self.text: bytes | None = b"conclave_sessions 3.0\n"
        self.served: list[str] = []

    async def why_unready(self) -> str | None:
        return self.reason

    async def metrics(self) -> bytes | None:
        return self.text

    async def serve(self, request: web.Request) -> web.WebSocketResponse:
        self.served.append(request.path_qs)
        ws = web.WebSocketResponse()
        await ws.prepare(request)
        await ws.send_bytes(b"hello")
        await ws.close()
        return ws


@pytest.fixture
def stub() -> Stub:
    return Stub()


@pytest.fixture
async def client(aiohttp_client: AiohttpClient, stub: Stub) -> Client:
    app = make_app(serve=stub.serve, why_closed=lambda: stub.reason, status=stub, metrics=True)
    return await aiohttp_client(app)


async def body(response: ClientResponse) -> tuple[int, str]:
    async with response:
        return response.status, await response.text()


@pytest.mark.parametrize("target", ["/", "/?via=alias", "/?a=b&c"])
async def test_the_root_upgrades_with_any_query(client: Client, stub: Stub, target: str) -> None:
    """People put names for themselves into the query; the original ignores it."""
    async with client.ws_connect(target) as ws:
        assert await ws.receive_bytes() == b"hello"
    assert stub.served == [target]


async def test_a_browser_at_the_root_is_told_to_upgrade(client: Client, stub: Stub) -> None:
    """426 names the protocol, which a proxy or a monitoring check understands."""
    response = await client.get("/")
    assert response.status == 426
    assert response.headers["Upgrade"] == "websocket"
    assert "WebSocket" in await response.text()
    assert stub.served == []


async def test_an_upgrade_to_something_else_is_told_the_same(client: Client) -> None:
    """`h2c` is a common one."""
    async with client.get("/", headers={"Connection": "Upgrade", "Upgrade": "h2c"}) as response:
        assert response.status == 426


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "HEAD"])
async def test_other_methods_are_refused(client: Client, method: str) -> None:
    """The root knows GET only."""
    async with client.request(method, "/") as response:
        assert response.status == 405


@pytest.mark.parametrize("path", ["/nothing", "/health/x", "/ready/"])
async def test_other_paths_do_not_exist(client: Client, path: str) -> None:
    """Nothing is served by accident."""
    async with client.get(path) as response:
        assert response.status == 404


async def test_a_node_that_cannot_serve_refuses_upgrades_with_retry_after(client: Client, stub: Stub) -> None:
    """A load balancer tries the next node; a client without one waits a second."""
    stub.reason = "Redis is not reachable"
    headers = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
    async with client.get("/", headers={**headers, "Sec-WebSocket-Key": "a" * 22 + "=="}) as response:
        assert response.status == 503
        assert response.headers["Retry-After"] == "1"
        assert await response.text() == "Redis is not reachable\n"
    assert stub.served == []


async def test_readiness_follows_the_store_and_liveness_does_not(client: Client, stub: Stub) -> None:
    """An orchestrator that restarts nodes because Redis is away makes an outage worse."""
    assert await body(await client.get("/ready")) == (200, "ready")
    assert await body(await client.get("/health")) == (200, "ok")
    stub.reason = "Redis is not reachable"
    assert await body(await client.get("/ready")) == (503, "Redis is not reachable")
    assert await body(await client.get("/health")) == (200, "ok")


async def test_metrics_are_served_as_prometheus_wants_them(client: Client) -> None:
    """The version in the content type is what its scraper looks at."""
    async with client.get("/metrics") as response:
        assert response.status == 200
        assert response.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        assert await response.text() == "conclave_sessions 3.0\n"
