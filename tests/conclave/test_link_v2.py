"""The client's connection in protocol v2, against a server that follows a script; and the selection of the version."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from aiohttp.typedefs import Handler

from conclave.client import link as link_module
from conclave.client.link import Link, Timeouts, connect, identify
from conclave.client.retry import may_retry, superseded
from conclave.errors import Code, ConclaveError, LinkError, LinkLost, LoginRefused, NotTrusted, Refusal
from conclave.machine.keys import MachineKey
from conclave.protocol.body import Body
from conclave.protocol.events import Event, Gap, Left, Message, Renamed, Role
from conclave.protocol.requests import Join, Joined, Send, Sent, Sessions, Who
from tests.support.scripted_server import ScriptedServer
from tests.support.v2_scripted_server import CLUSTER, Json, V2Connection, V2ScriptedServer
from tests.support.waiting import wait_until

KEY = MachineKey(bytes(32))
LONG = Timeouts(connect=20, reply=20, ping=60, close=1)
MESSAGE: Json = {"ev": "message", "channel": "ops", "id": "5-0", "ts": 5, "from": "bob/desk/y", "body": {"text": "hi"}}
HEARD = Message("ops", "bob/desk/y", Body(text="hi"), "5-0", 5)


@pytest.fixture
async def server() -> AsyncIterator[V2ScriptedServer]:
    async with V2ScriptedServer().running() as running:
        yield running


async def linked(server: V2ScriptedServer, timeouts: Timeouts = LONG, cluster: str | None = None) -> Link:
    return await connect(server.url, KEY, "x", timeouts=timeouts, cluster=cluster)


async def everything(link: Link) -> tuple[list[Event], LinkLost]:
    """Return all events and the end."""
    events: list[Event] = []
    while True:
        try:
            events.append(await link.next_event())
        except LinkLost as lost:
            return events, lost


# --- Logging in ---


async def test_a_link_knows_its_path_role_and_cluster(server: V2ScriptedServer) -> None:
    """The role is an event, as in v1, and known before anything is read."""
    server.ready["admin"] = True
    async with await linked(server, cluster=CLUSTER) as link:
        assert (link.path, link.admin, link.version) == ("ann/laptop/x", True, 2)
        assert (link.server_id, link.cluster) == (CLUSTER, CLUSTER)
        assert await link.next_event() == Role(admin=True)
    hello, proof = server.hellos[0], server.proofs[0]
    assert (hello["protocol"], hello["session"], hello["origin"]) == (2, "x", server.url)
    assert proof["op"] == "auth"


async def test_registering_is_one_login(server: V2ScriptedServer) -> None:
    """With an invite, where the server wants one."""
    async with await connect(server.url, KEY, "x", register=("zoe", "phone"), invite="t", timeouts=LONG):
        pass
    proof = server.proofs[0]
    assert [proof[name] for name in ("op", "user", "machine", "invite")] == ["register", "zoe", "phone", "t"]


@pytest.mark.parametrize(("register", "verb"), [(None, "authentication"), (("ann", "laptop"), "registration")])
async def test_a_refused_login_has_a_reason(
    server: V2ScriptedServer, register: tuple[str, str] | None, verb: str
) -> None:
    """With the server's text, its code, and its subject."""
    server.ready = {"ev": "closing", "code": 4006, "reason": "no such luck", "error": "conflict"}
    with pytest.raises(LoginRefused) as caught:
        await connect(server.url, KEY, "x", register=register, timeouts=LONG)
    assert str(caught.value) == f"{verb} rejected: conflict: no such luck"
    assert (caught.value.code, caught.value.refusal.code) == (4006, Code.CONFLICT)
    assert not may_retry(caught.value)


async def test_a_login_at_a_bad_moment_has_the_time_of_a_retry(server: V2ScriptedServer) -> None:
    """The store is away, or the node drains."""
    server.challenge = {"ev": "closing", "code": 1013, "reason": "away", "retry_after": 1.5, "error": "unavailable"}
    with pytest.raises(LoginRefused) as caught:
        await linked(server)
    assert (caught.value.code, caught.value.retry_after, may_retry(caught.value)) == (1013, 1.5, True)
    assert server.proofs == []


@pytest.mark.parametrize("challenge", [{"ev": "gap"}, {"ev": "challenge", "nonce": "AA", "cluster": "c", "node": "n"}])
async def test_a_server_that_sends_invalid_data_is_no_relay(server: V2ScriptedServer, challenge: Json) -> None:
    """An error, not a hang; and nothing is signed for it."""
    server.challenge = challenge
    with pytest.raises(LinkError, match="undecodable response"):
        await linked(server)
    assert server.proofs == []


# --- Whom it trusts ---


async def test_another_cluster_gets_no_signature(server: V2ScriptedServer) -> None:
    """At the upgrade; or, if the server does not send its id there, at the challenge."""
    with pytest.raises(NotTrusted, match=f"says it is cluster `{CLUSTER}`, but `mine` is expected there"):
        await linked(server, cluster="mine")
    assert server.hellos == []
    del server.headers["x-conclave-server-id"]
    with pytest.raises(NotTrusted, match=f"says it is cluster `{CLUSTER}`, but `mine`") as caught:
        await linked(server, cluster="mine")
    assert (len(server.hellos), server.proofs) == (1, [])
    assert not may_retry(caught.value)


async def test_a_server_has_one_name(server: V2ScriptedServer) -> None:
    """A server with another id in the upgrade than in the login would be taken for two different ones."""
    server.headers["x-conclave-server-id"] = "somebody-else"
    with pytest.raises(NotTrusted):
        await linked(server)
    assert server.proofs == []


async def test_a_pinned_cluster_is_not_spoken_to_in_v1() -> None:
    """Such a login could be passed on: to the very cluster that is pinned."""
    async with ScriptedServer().running() as older:
        older.headers["x-conclave-server-id"] = CLUSTER
        with pytest.raises(NotTrusted, match="speaks protocol v1 only"):
            await connect(older.url, KEY, "x", timeouts=LONG, cluster=CLUSTER)
        await wait_until(lambda: older.left_early)
        assert older.connections == []


async def test_the_servers_id_is_checked_before_anything_is_sent(server: V2ScriptedServer) -> None:
    """A second login at the same cluster is what the check is there to prevent."""

    class NotThatOne(ConclaveError):
        pass

    def refuse(told: str | None) -> None:
        raise NotThatOne(told)

    with pytest.raises(NotThatOne, match=CLUSTER):
        await connect(server.url, KEY, "x", timeouts=LONG, check_server=refuse)
    assert server.hellos == []


async def test_a_server_tells_its_name_without_a_login(server: V2ScriptedServer) -> None:
    """To decide whether to trust it, nothing must have been signed for it yet."""
    assert await identify(server.url, "x", timeouts=LONG) == CLUSTER
    assert server.proofs == []
    async with ScriptedServer().running() as older:
        older.headers["x-conclave-server-id"] = CLUSTER
        assert await identify(older.url, "x", timeouts=LONG) is None
    server.challenge = {"ev": "closing", "code": 1012, "reason": "drains"}
    with pytest.raises(LoginRefused, match="drains"):
        await identify(server.url, "x", timeouts=LONG)


# --- Which version it chooses ---


async def test_a_server_that_ignores_the_offer_is_spoken_to_in_v1() -> None:
    """As the original does."""
    async with ScriptedServer().running() as older, await connect(older.url, KEY, "x", timeouts=LONG) as link:
        assert (link.version, link.path, link.cluster) == (1, "ann/laptop/x", None)
        assert await link.request(Send("ops", Body(text="hi"))) == Sent()


@pytest.mark.parametrize("status", [400, 403, 426])
async def test_a_server_that_refuses_the_offer_is_spoken_to_in_v1(status: int) -> None:
    """Some stacks refuse an upgrade with a subprotocol that they do not know."""
    older = ScriptedServer()
    offers: list[str | None] = []

    @web.middleware
    async def picky(request: web.Request, handler: Handler) -> web.StreamResponse:
        offers.append(request.headers.get("Sec-WebSocket-Protocol"))
        if offers[-1] is not None:
            return web.Response(status=status)
        return await handler(request)

    older.middlewares.append(picky)
    async with older.running(), await connect(older.url, KEY, "x", timeouts=LONG) as link:
        assert link.version == 1
    assert offers == ["conclave.v2", None]


# --- Asking and hearing ---


async def test_results_and_refusals_find_their_requests(server: V2ScriptedServer) -> None:
    """In any order."""
    held: list[Json] = []

    async def answer(connection: V2Connection, request: Json) -> None:
        held.append(request)
        if len(held) < 3:
            return
        await connection.send({"re": held[2]["id"], "id": "6-0", "ts": 6})
        error = {"code": "not_found", "message": "channel `no` not found"}
        await connection.send(MESSAGE, {"re": held[1]["id"], "error": error})
        await connection.send({"re": held[0]["id"], "sessions": ["a/b/c"]})

    server.answer = answer
    async with await linked(server) as link:
        results = await asyncio.gather(
            link.request(Who()),
            link.request(Join("no", since="5-0")),
            link.request(Send("ops", Body(text="x" * 70_000), "key")),
            return_exceptions=True,
        )
        assert results[0] == Sessions(("a/b/c",))
        assert isinstance(results[1], Refusal)
        assert results[1].code is Code.NOT_FOUND
        assert results[2] == Sent("6-0", 6)
        assert [await link.next_event() for _ in range(2)] == [Role(admin=False), HEARD]
    assert (server.received[1]["since"], server.received[2]["key"]) == ("5-0", "key")


async def test_every_event_of_the_version_is_delivered(server: V2ScriptedServer) -> None:
    """And one that is not known here costs nothing."""

    async def answer(connection: V2Connection, request: Json) -> None:
        await connection.send(
            {"ev": "gap", "channel": "ops", "after": "1-0"},
            {"ev": "weather", "rain": True},
            {"ev": "renamed", "channel": "ops", "to": "dev"},
            {"ev": "left", "channel": "dev", "reason": "kicked"},
            {"ev": "role", "admin": True},
            {"re": request["id"], "channel": "ops", "position": "1-0", "recovered": False, "admin": True},
        )

    server.answer = answer
    async with await linked(server) as link:
        assert await link.request(Join("ops", since="0-0")) == Joined("ops", "1-0", recovered=False, admin=True)
        assert link.admin
        assert [await link.next_event() for _ in range(5)][1:] == [
            Gap("ops", "1-0"),
            Renamed("ops", "dev"),
            Left("dev", "kicked"),
            Role(admin=True),
        ]


@pytest.mark.parametrize(
    ("code", "event", "expected", "retry"),
    [
        (1012, {"code": 1012, "reason": "the relay is shutting down; reconnect"}, (1012, None), True),
        (1013, {"code": 1013, "reason": "too much", "retry_after": 2}, (1013, 2), True),
        (4001, {"code": 4001, "reason": "superseded"}, (4001, None), False),
        (4004, None, (4004, None), True),
        (4002, None, (4002, None), False),
    ],
)
async def test_a_close_has_its_reason_and_the_time_of_a_retry(
    server: V2ScriptedServer, code: int, event: Json | None, expected: tuple[int, float | None], retry: bool
) -> None:
    """Open requests and the reader of events get it; messages before it are delivered."""

    async def answer(connection: V2Connection, _: Json) -> None:
        await connection.send(MESSAGE)
        await connection.close(code, "the reason", event)

    server.answer = answer
    async with await linked(server) as link:
        with pytest.raises(LinkLost) as asked:
            await link.request(Who())
        events, error_of_events = await everything(link)
        assert events == [Role(admin=False), HEARD]
        for error in (asked.value, error_of_events):
            assert (error.code, error.retry_after) == expected
            assert error.reason == ("the reason" if event is None else event["reason"])
            assert may_retry(error) is retry
            assert superseded(error) is (code == 4001)


async def test_a_connection_that_breaks_has_no_reason(server: V2ScriptedServer) -> None:
    """The client reconnects after it."""

    async def answer(connection: V2Connection, _: Json) -> None:
        connection.cut()

    server.answer = answer
    async with await linked(server) as link:
        with pytest.raises(LinkLost) as caught:
            await link.request(Who())
        assert (caught.value.code, caught.value.reason, may_retry(caught.value)) == (None, None, True)


@pytest.mark.parametrize(
    "messages",
    [
        [{"re": 99}],
        [{"re": None, "error": {"code": "malformed", "message": "what?"}}],
        [{"ev": "message", "channel": "ops"}],
        [{"re": 1, "sessions": "nobody"}],
    ],
)
async def test_a_server_that_is_out_of_step_loses_the_link(server: V2ScriptedServer, messages: list[Json]) -> None:
    """A reply without a known request may be that of the open one."""

    async def answer(connection: V2Connection, _: Json) -> None:
        await connection.send(*messages)

    server.answer = answer
    async with await linked(server) as link:
        with pytest.raises(LinkLost, match="response") as caught:
            await link.request(Who())
        assert may_retry(caught.value)


async def test_pings_keep_the_servers_time(server: V2ScriptedServer) -> None:
    """`ready` has the greatest silence; without the pings the server would close the session."""
    server.ready["heartbeat"] = 1
    async with await linked(server):
        await wait_until(lambda: server.received)
        assert server.received[0]["op"] == "ping"


async def test_events_beyond_the_bound_cost_the_link_not_the_memory(
    server: V2ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A follower of a channel resumes at its position; the events that did fit have no gap."""
    monkeypatch.setattr(link_module, "EVENT_BYTES", 11_000)

    async def answer(connection: V2Connection, request: Json) -> None:
        for number in range(8):
            await connection.send({**MESSAGE, "id": f"{number}-0", "body": {"text": "x" * 1000}})
        await connection.send(MESSAGE, {"re": request["id"]})

    server.answer = answer
    async with await linked(server) as link:
        with pytest.raises(LinkLost, match="too many events"):
            await link.request(Who())
        events, _ = await everything(link)
        ids = [event.id for event in events if isinstance(event, Message)]
        assert ids == [f"{number}-0" for number in range(len(ids))]
        assert 0 < len(ids) < 8
