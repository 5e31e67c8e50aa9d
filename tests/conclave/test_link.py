"""The client's connection, against a server that follows a script."""

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest

from conclave.client import link as link_module
from conclave.client.link import Link, Timeouts, connect
from conclave.client.retry import may_retry, superseded
from conclave.errors import Code, ConclaveError, InvalidUrl, LinkError, LinkLost, LoginRefused, Refusal
from conclave.machine.keys import MachineKey
from conclave.model import Plain, SessionPath
from conclave.protocol import requests
from conclave.protocol.body import Body
from conclave.protocol.close_texts import KEY_REVOKED, SUPERSEDED
from conclave.protocol.events import Message, Role, Whispered
from conclave.protocol.limits import FRAME_BYTES
from conclave.protocol.requests import Done, History, Page, Send, Sent, Sessions
from conclave.protocol.v1 import encode
from conclave.protocol.v1.frames import (
    Ack,
    ChannelMsg,
    Error,
    Frame,
    HistoryMessage,
    Join,
    Joined,
    NotFound,
    Ping,
    Pong,
    Presence,
    ReadSince,
    Unauthorized,
    VersionMismatch,
    Whisper,
)
from conclave.protocol.v1.frames import History as HistoryFrame
from tests.support.scripted_server import Connection, ScriptedServer
from tests.support.waiting import wait_until

KEY = MachineKey(bytes(32))
BOB = SessionPath("bob", "desktop", "y")
SOON = Timeouts(connect=0.2, reply=0.2, ping=30, close=0.2)
LONG = Timeouts(connect=20, reply=20, ping=60, close=1)


def message(text: str) -> ChannelMsg:
    return ChannelMsg("ops", BOB, Plain(text))


def delivered(text: str) -> Message:
    return Message("ops", str(BOB), Body(text=text))


def post(text: str) -> Send:
    return Send("ops", Body(text=text))


@pytest.fixture
async def server() -> AsyncIterator[ScriptedServer]:
    async with ScriptedServer().running() as running:
        yield running


async def linked(server: ScriptedServer, timeouts: Timeouts = LONG) -> Link:
    return await connect(server.url, KEY, "x", timeouts=timeouts)


# --- Logging in ---


async def test_a_link_knows_its_path_role_and_server(server: ScriptedServer) -> None:
    """The role comes as the first event, the server's id with the upgrade."""
    server.headers["x-conclave-server-id"] = "cluster-1"
    server.admin = True
    async with await linked(server) as link:
        assert await link.next_event() == Role(admin=True)
        assert (link.path, link.admin, link.server_id, link.version) == ("ann/laptop/x", True, "cluster-1", 1)


async def test_registering_logs_in_as_the_new_user(server: ScriptedServer) -> None:
    """No second connection is needed."""
    async with await connect(server.url, KEY, "x", register=("zoe", "phone"), timeouts=LONG) as link:
        assert link.path == "zoe/phone/x"


@pytest.mark.parametrize(("register", "verb"), [(None, "authentication"), (("ann", "laptop"), "registration")])
async def test_a_refused_login_has_a_reason(
    server: ScriptedServer, register: tuple[str, str] | None, verb: str
) -> None:
    """With the server's text, and with its subject."""
    server.refuse = [Unauthorized("no such luck")]
    with pytest.raises(LoginRefused) as caught:
        await connect(server.url, KEY, "x", register=register, timeouts=LONG)
    assert str(caught.value) == f"{verb} rejected: unauthorized: no such luck"
    assert not may_retry(caught.value)


async def test_another_protocol_version_is_named_plainly(server: ScriptedServer) -> None:
    """It comes where a challenge was due, and is neither a riddle nor an authentication failure."""
    server.instead_of_challenge = encode(Error(VersionMismatch(2, 1)))
    with pytest.raises(LoginRefused, match=r"^incompatible protocol version: ours=2, theirs=1$"):
        await linked(server)


@pytest.mark.parametrize(
    ("data", "text"),
    [(encode(Ack()), "expected a challenge, got ack"), (b"\xff\xff", "undecodable response"), (b"", "undecodable")],
)
async def test_a_server_that_sends_invalid_data_is_no_relay(server: ScriptedServer, data: bytes, text: str) -> None:
    """An error, not a hang."""
    server.instead_of_challenge = data
    with pytest.raises(LinkError, match=text):
        await linked(server)


async def test_a_silent_server_runs_into_the_reply_deadline(server: ScriptedServer) -> None:
    """Every wait has an end."""
    server.silent = True
    with pytest.raises(LinkError, match=r"^timed out after 0\.2s waiting for a server response$"):
        await linked(server, SOON)


async def test_a_server_that_does_not_upgrade_runs_into_the_connect_deadline() -> None:
    """The kernel accepts the connection, and nothing is ever sent."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"ws://127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(LinkError) as caught:
            await connect(url, KEY, "x", timeouts=SOON)
    assert str(caught.value) == f"timed out after 0.2s connecting to `{url}`"


async def test_a_closed_port_is_reported_in_the_systems_words() -> None:
    """The most common mistake of all."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"ws://127.0.0.1:{listener.getsockname()[1]}"
    with pytest.raises(LinkError) as caught:
        await connect(url, KEY, "x", timeouts=LONG)
    assert str(caught.value) == f"failed to connect to `{url}`: Connection refused"


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("/missing", "status 404"),
        ("/elsewhere", "redirects elsewhere"),
        ("/starting", "the relay cannot serve sessions right now"),
    ],
)
async def test_anything_but_an_upgrade_is_refused(server: ScriptedServer, path: str, text: str) -> None:
    """A redirect would send the login to a server that the user did not name."""
    with pytest.raises(LinkError, match=text):
        await connect(server.url + path, KEY, "x", timeouts=LONG)


async def test_a_url_that_cannot_be_dialled_is_refused_first() -> None:
    """Before any connection."""
    with pytest.raises(InvalidUrl):
        await connect("http://127.0.0.1", KEY, "x")


@pytest.mark.parametrize("server_id", ["cluster-1", None])
async def test_the_servers_id_is_checked_before_anything_is_sent(server: ScriptedServer, server_id: str | None) -> None:
    """A login at the wrong server is what the check is there to prevent; the connection is given up in good order."""
    if server_id is not None:
        server.headers["x-conclave-server-id"] = server_id
    seen: list[str | None] = []

    class NotThatOne(ConclaveError):
        pass

    def refuse(told: str | None) -> None:
        seen.append(told)
        raise NotThatOne("another server")

    with pytest.raises(NotThatOne, match="another server"):
        await connect(server.url, KEY, "x", timeouts=LONG, check_server=refuse)
    await wait_until(lambda: server.left_early, what="the server sees the connection closed")
    assert (server.left_early, server.connections, seen) == ([True], [], [server_id])

    async with await connect(server.url, KEY, "x", timeouts=LONG, check_server=seen.append) as link:
        assert link.server_id == server_id
    assert seen == [server_id, server_id]


async def test_a_refusal_by_the_check_is_passed_on_as_it_is(server: ScriptedServer) -> None:
    """It is not the server that refused the login."""

    def refuse(_: str | None) -> None:
        raise Refusal(Code.CONFLICT, "connected already")

    with pytest.raises(Refusal, match=r"^connected already$"):
        await connect(server.url, KEY, "x", timeouts=LONG, check_server=refuse)


# --- Requests ---


async def test_messages_between_a_request_and_its_reply_are_events(server: ScriptedServer) -> None:
    """A post succeeds although another message arrives at that moment."""

    async def answer(connection: Connection, _: Frame) -> None:
        await connection.send(message("first"), Ack(), message("second"))

    server.answer = answer
    async with await linked(server) as link:
        assert await link.request(post("mine")) == Sent()
        assert [await link.next_event() for _ in range(3)] == [
            Role(admin=False),
            delivered("first"),
            delivered("second"),
        ]


async def test_concurrent_requests_get_their_own_replies(server: ScriptedServer) -> None:
    """In the order in which they were asked."""

    async def answer(connection: Connection, frame: Frame) -> None:
        await connection.send(Joined(frame.channel) if isinstance(frame, Join) else Presence(None, ()))

    server.answer = answer
    async with await linked(server) as link:
        replies = await asyncio.gather(
            link.request(requests.Join("a")), link.request(requests.Who()), link.request(requests.Join("b"))
        )
        assert list(replies) == [requests.Joined("a"), Sessions(()), requests.Joined("b")]


async def test_a_result_may_take_more_than_one_reply(server: ScriptedServer) -> None:
    """A request made meanwhile gets its own answer, and the follow-up is sent before any later request."""
    rows = (HistoryMessage(BOB, 5, Plain("a")), HistoryMessage(BOB, 6, Plain("b")))

    async def answer(connection: Connection, frame: Frame) -> None:
        if isinstance(frame, ReadSince):
            page = tuple(row for row in rows if row.ts_ms > frame.since_ms)[:1]  # a page cut short
            await connection.send(HistoryFrame(frame.channel, page))
        else:
            await connection.send(Presence(None, ()))

    server.answer = answer
    async with await linked(server) as link:
        first, who, second = await asyncio.gather(
            link.request(History("ops", after="5:1")),
            link.request(requests.Who()),
            link.request(History("ops", after="6:1")),
        )
        assert [row.id for row in first.messages] == ["6:1"]
        assert (who, second) == (Sessions(()), Page((), more=False))
        assert [row.id for row in (await link.request(History("ops", after_ts=0))).messages] == ["5:1"]


async def test_a_request_that_this_version_lacks_leaves_the_link_usable(server: ScriptedServer) -> None:
    """It was not sent."""
    async with await linked(server) as link:
        with pytest.raises(Refusal, match="somebody else's account"):
            await link.request(requests.MachineRemove("m", user="bob"))
        assert await link.request(requests.Ping()) == Done()
        assert server.received == [Ping()]


async def test_a_refusal_leaves_the_link_usable(server: ScriptedServer) -> None:
    """It concerns one request only."""

    async def answer(connection: Connection, frame: Frame) -> None:
        await connection.send(Error(NotFound("nope")) if isinstance(frame, Join) else Ack())

    server.answer = answer
    async with await linked(server) as link:
        with pytest.raises(Refusal, match=r"^nope$"):
            await link.request(requests.Join("a"))
        assert await link.request(post("x")) == Sent()


async def test_a_cancelled_request_does_not_shift_the_next_answer(server: ScriptedServer) -> None:
    """Its reply still comes, and belongs to no request."""
    held = asyncio.Event()

    async def answer(connection: Connection, frame: Frame) -> None:
        if isinstance(frame, Join) and frame.channel == "slow":
            await held.wait()
        if isinstance(frame, Join):
            await connection.send(Joined(frame.channel))

    server.answer = answer
    async with await linked(server) as link:
        slow = asyncio.create_task(link.request(requests.Join("slow")))
        await wait_until(lambda: server.received)
        slow.cancel()
        held.set()
        assert await link.request(requests.Join("next")) == requests.Joined("next")


async def test_a_reply_of_the_wrong_kind_ends_the_link(server: ScriptedServer) -> None:
    """Rather than answering this and every later request wrongly."""
    async with await linked(server) as link:
        with pytest.raises(LinkLost, match="unexpected response: expected the answer to join, got ack"):
            await link.request(requests.Join("a"))
        with pytest.raises(LinkLost, match="unexpected response"):
            await link.request(post("x"))


async def test_a_missing_reply_ends_the_link_at_the_deadline(server: ScriptedServer) -> None:
    """Afterwards nothing says which request the next reply answers."""

    async def answer(_: Connection, __: Frame) -> None:
        pass

    server.answer = answer
    async with await linked(server, SOON) as link:
        with pytest.raises(LinkLost) as caught:
            await link.request(requests.Join("a"))
        assert str(caught.value) == "timed out after 0.2s waiting for a server response"
        with pytest.raises(LinkLost, match="timed out"):
            await link.request(requests.Join("b"))


async def test_a_frame_over_the_cap_is_refused_here(server: ScriptedServer) -> None:
    """The server would drop the connection for it."""
    async with await linked(server) as link:
        with pytest.raises(Refusal) as caught:
            await link.request(post("x" * FRAME_BYTES))
        assert caught.value.code is Code.TOO_LARGE
        assert await link.request(post("small")) == Sent()


async def test_a_frame_of_exactly_the_cap_is_received(server: ScriptedServer) -> None:
    """The limit is inclusive on both sides."""
    overhead = len(encode(message(""))) + 4  # the length of the text takes five bytes instead of one
    largest = message("x" * (FRAME_BYTES - overhead))
    assert len(encode(largest)) == FRAME_BYTES

    async def answer(connection: Connection, _: Frame) -> None:
        await connection.send(largest, Ack())

    server.answer = answer
    async with await linked(server) as link:
        await link.request(post("go"))
        assert await link.next_event() == Role(admin=False)
        assert await link.next_event() == delivered("x" * (FRAME_BYTES - overhead))


async def test_an_undecodable_frame_ends_the_link_only_while_a_reply_is_due(server: ScriptedServer) -> None:
    """It may be that reply; otherwise it is news from a later version, and skipped."""

    async def answer(connection: Connection, frame: Frame) -> None:
        if isinstance(frame, Join):
            await connection.socket.send_bytes(b"\x7f")
        else:
            await connection.send(Ack())
            await connection.socket.send_bytes(b"\x7f")
            await connection.socket.send_str("text means nothing either")
            await connection.send(message("after"))

    server.answer = answer
    async with await linked(server) as link:
        await link.request(post("x"))
        assert [await link.next_event(), await link.next_event()] == [Role(admin=False), delivered("after")]
        with pytest.raises(LinkLost, match="undecodable response"):
            await link.request(requests.Join("a"))


# --- Events and the end ---


async def test_a_whisper_during_the_login_is_delivered(server: ScriptedServer) -> None:
    """The original shows a session to others a moment early."""
    early = Whisper(BOB, SessionPath("ann", "laptop", "x"), Plain("psst"))
    server.early = [early]
    async with await linked(server) as link:
        assert await link.next_event() == Whispered(str(BOB), Body(text="psst"))


async def test_a_kill_is_the_reason_and_answers_no_request(server: ScriptedServer) -> None:
    """The request may have succeeded; the reason decides about a reconnect."""

    async def answer(connection: Connection, _: Frame) -> None:
        await connection.send(message("last"))
        await connection.kill(Unauthorized(SUPERSEDED))

    server.answer = answer
    async with await linked(server) as link:
        with pytest.raises(LinkLost, match=f"^unauthorized: {SUPERSEDED}$"):
            await link.request(post("x"))
        assert [await link.next_event(), await link.next_event()] == [Role(admin=False), delivered("last")]
        with pytest.raises(LinkLost) as caught:
            await link.next_event()
        assert caught.value.reason == SUPERSEDED
        assert superseded(caught.value)
        assert not may_retry(caught.value)


async def test_a_lost_connection_fails_open_requests_and_may_be_retried(server: ScriptedServer) -> None:
    """Without a reason the client reconnects."""

    async def answer(connection: Connection, _: Frame) -> None:
        connection.cut()

    server.answer = answer
    async with await linked(server) as link:
        with pytest.raises(LinkLost, match=r"^connection closed before a response arrived$") as caught:
            await link.request(post("x"))
        assert caught.value.reason is None
        assert may_retry(caught.value)


async def test_a_refusal_followed_by_a_close_is_its_reason(server: ScriptedServer) -> None:
    """A server may end a session with a text that is unknown here."""

    async def answer(connection: Connection, _: Frame) -> None:
        await connection.kill(Unauthorized("maintenance, back at noon"))

    server.answer = answer
    async with await linked(server) as link:
        with pytest.raises(Refusal):
            await link.request(post("x"))
        with pytest.raises(LinkLost, match="maintenance, back at noon"):
            async for _ in link.events():
                pass


async def test_a_refusal_long_before_the_end_is_not_its_reason(server: ScriptedServer) -> None:
    """A frame in between shows that the session went on."""

    async def answer(connection: Connection, frame: Frame) -> None:
        if isinstance(frame, Join):
            await connection.send(Error(Unauthorized(f"not {KEY_REVOKED}")), message("life goes on"))
        else:
            connection.cut()

    server.answer = answer
    async with await linked(server) as link:
        with pytest.raises(Refusal):
            await link.request(requests.Join("a"))
        with pytest.raises(LinkLost) as caught:
            await link.request(post("x"))
        assert caught.value.reason is None


async def test_pings_are_sent_and_a_missing_pong_ends_the_link(server: ScriptedServer) -> None:
    """A half-open connection is noticed without any traffic."""
    answered = 0

    async def answer(connection: Connection, frame: Frame) -> None:
        nonlocal answered
        if isinstance(frame, Ping) and answered < 3:
            answered += 1
            await connection.send(Pong())

    server.answer = answer
    async with await linked(server, Timeouts(connect=20, reply=0.3, ping=0.01, close=0.2)) as link:
        with pytest.raises(LinkLost, match="timed out") as caught:
            async for _ in link.events():
                pass
        assert may_retry(caught.value)
    assert answered == 3


async def test_events_beyond_the_bound_cost_the_link_not_the_memory(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A follower of a channel resumes from its history; the events that did fit have no gap."""
    monkeypatch.setattr(link_module, "EVENT_BYTES", 11_000)

    async def answer(connection: Connection, _: Frame) -> None:
        large = [message(f"{number}" + "x" * 1000) for number in range(8)]
        await connection.send(*large, message("small enough"), Ack())

    server.answer = answer
    async with await linked(server) as link:
        with pytest.raises(LinkLost, match="too many events") as caught:
            await link.request(post("go"))
        assert may_retry(caught.value)
        assert 0 < link.queued < 8
        assert await link.next_event() == Role(admin=False)
        heard_bodies = [
            event.body.text or ""
            for event in [await link.next_event() for _ in range(link.queued)]
            if isinstance(event, Message)
        ]
        assert [text[0] for text in heard_bodies] == [str(number) for number in range(len(heard_bodies))]


async def test_waiting_for_an_event_can_be_given_up_without_losing_one(server: ScriptedServer) -> None:
    """A deadline on waiting is how a follower keeps its own time."""
    async with await linked(server) as link:
        await link.next_event()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await link.next_event()
        await server.connections[0].send(message("x"))
        assert await link.next_event() == delivered("x")


async def test_closing_fails_what_is_open_and_can_be_repeated(server: ScriptedServer) -> None:
    """Nothing keeps waiting for a link that its owner has closed."""

    async def answer(_: Connection, __: Frame) -> None:
        pass

    server.answer = answer
    link = await linked(server)
    waiting = asyncio.create_task(link.request(requests.Who()))
    await wait_until(lambda: server.received)
    await link.close()
    await link.close()
    with pytest.raises(LinkLost, match="closed here"):
        await waiting
    with pytest.raises(LinkLost):
        await link.request(requests.Who())


async def test_the_servers_time_is_its_own(server: ScriptedServer) -> None:
    """Positions in the history are times by the server's clock, however wrong it is."""
    server.headers["Date"] = "Thu, 01 Jan 2032 00:00:00 GMT"
    async with await linked(server) as link:
        assert 0 <= link.server_ms() - 1_956_528_000_000 < 60_000


async def test_headers_that_come_twice(server: ScriptedServer) -> None:
    """Gateways add a second date. Two ids are ambiguous: that ends the attempt, and no more."""
    for year in (2032, 2040):
        server.headers.add("Date", f"Thu, 01 Jan {year} 00:00:00 GMT")
    server.headers.add("x-conclave-server-id", "cluster-1")
    server.headers.add("x-conclave-server-id", "cluster-1")
    async with await linked(server) as link:
        assert 0 <= link.server_ms() - 1_956_528_000_000 < 60_000
        assert link.server_id == "cluster-1"
    server.headers.add("x-conclave-server-id", "cluster-2")
    with pytest.raises(LinkError, match="several ids"):
        await linked(server)
    await wait_until(lambda: server.left_early)
    assert server.left_early == [True]
