"""A rogue server between a client and a relay: it passes on what it likes, and gets in nowhere."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from conclave.client.link import Timeouts, connect, identify
from conclave.errors import LoginRefused, NotTrusted
from conclave.machine.keys import MachineKey
from conclave.urls import origin
from tests.support.nodes import node_object
from tests.support.ports import free_port
from tests.support.proxy import V1Only
from tests.support.web_server import running_app

TIMEOUTS = Timeouts(connect=20, reply=20, ping=60, close=1)

Change = Callable[[dict[str, Any]], dict[str, Any]]


class Rogue:
    """A server that forwards the login of its own clients to another one."""

    def __init__(self, victim: str) -> None:
        self.victim = victim
        self.hello: Change = lambda message: message
        self.challenge: Change = lambda message: message
        self.proofs = 0
        self.got_in = False
        self.url = ""

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Rogue"]:
        app = web.Application()
        app.router.add_get("/", self._serve)
        async with running_app(app) as port:
            self.url = f"ws://127.0.0.1:{port}"
            yield self

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        lured = web.WebSocketResponse(protocols=("conclave.v2",))
        await lured.prepare(request)
        async with (
            aiohttp.ClientSession() as http,
            http.ws_connect(self.victim, protocols=("conclave.v2",)) as there,
        ):
            await there.send_json(self.hello(await lured.receive_json()))
            if not await self._pass_back(there, lured, self.challenge):
                return lured
            proof = await lured.receive()
            if proof.type is aiohttp.WSMsgType.TEXT:
                self.proofs += 1
                await there.send_str(proof.data)
                self.got_in = await self._pass_back(there, lured, lambda message: message)
        return lured

    async def _pass_back(
        self, there: "aiohttp.ClientWebSocketResponse[bool]", lured: web.WebSocketResponse, change: Change
    ) -> bool:
        """Pass on what the victim answers; False if it was a refusal."""
        said = json.loads(await there.receive_str())
        await lured.send_json(change(said))
        if said["ev"] == "closing":
            await lured.close(code=said["code"])
        return bool(said["ev"] != "closing")


@pytest.fixture
async def victim(redis_url: str) -> AsyncIterator[str]:
    """A relay that knows its address."""
    port = free_port()
    url = f"ws://127.0.0.1:{port}"
    async with node_object(redis_url, origins=frozenset({url}), port=port):
        yield url


@pytest.fixture
async def rogue(victim: str) -> AsyncIterator[Rogue]:
    async with Rogue(victim).running() as running:
        yield running


async def attempt(url: str, cluster: str | None = None) -> None:
    """Log in, as a client that was registered at the victim, or was lured to register here."""
    async with await connect(
        url, MachineKey.generate(), "x", register=("ann", "laptop"), timeouts=TIMEOUTS, cluster=cluster
    ):
        pass


@pytest.mark.parametrize("lie", ["nothing", "the origin", "the origin and the cluster"])
async def test_a_login_that_is_passed_on_is_refused_by_the_relay(rogue: Rogue, victim: str, lie: str) -> None:
    """The client signs the dialled origin and the cluster's id; those of the relay are different."""
    if lie != "nothing":
        rogue.hello = lambda message: {**message, "origin": origin(victim)}
    if "cluster" in lie:
        rogue.challenge = lambda message: {**message, "cluster": "rogue"}
    with pytest.raises(LoginRefused):
        await attempt(rogue.url)
    assert rogue.proofs == (0 if lie == "nothing" else 1)
    assert not rogue.got_in
    await attempt(victim)


async def test_a_client_that_knows_the_cluster_does_not_even_answer(rogue: Rogue, victim: str) -> None:
    """It dialled one cluster, and is handed the challenge of another."""
    theirs = await identify(victim, "x", timeouts=TIMEOUTS)
    assert theirs is not None
    rogue.hello = lambda message: {**message, "origin": origin(victim)}
    with pytest.raises(NotTrusted, match=f"`{theirs}`, but `mine` is expected"):
        await attempt(rogue.url, cluster="mine")
    assert (rogue.proofs, rogue.got_in) == (0, False)
    await attempt(victim, cluster=theirs)


async def test_a_client_with_a_pin_is_not_downgraded(victim: str) -> None:
    """A man in the middle only has to drop the offer of v2; a v1 login would be valid at the relay."""
    theirs = await identify(victim, "x", timeouts=TIMEOUTS)
    host, _, port = victim.removeprefix("ws://").partition(":")
    async with V1Only(host, int(port)) as between:
        url = f"ws://127.0.0.1:{between.port}"
        with pytest.raises(NotTrusted, match="speaks protocol v1 only"):
            await attempt(url, cluster=theirs)
        await attempt(url)


async def test_the_way_through_the_rogue_works(redis_url: str) -> None:
    """So the attempts above fail because of the lie. A relay without a public URL cannot detect it."""
    async with node_object(redis_url) as node, Rogue(f"ws://{node.address}").running() as rogue:
        async with asyncio.timeout(20):
            await attempt(rogue.url)
        assert rogue.got_in
