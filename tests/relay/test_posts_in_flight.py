"""Posts that a session sends without waiting for the replies: together on the way to Redis, in order in the log."""

import asyncio
from functools import partial
from typing import Any

import msgspec
import pytest

from conclave.model import Plain
from conclave.protocol.v1 import admin, frames
from relay.app.node import Node
from relay.model.close_reason import CloseReason
from relay.services.messages import Messages
from tests.support.blocking import BlockedCommand
from tests.support.nodes import node_object
from tests.support.peer import Peer, Peers
from tests.support.redis_server import RedisProcess
from tests.support.v2_peer import V2Peers, V2Refused
from tests.support.waiting import wait_until


@pytest.fixture(autouse=True)
def no_stalls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have no post wait for the inbox: it would go alone, and the machine may be busy."""
    monkeypatch.setattr("relay.redis.inbox._CURRENT_SECONDS", 60.0)


class Flights:
    """The posts of a node that wait for Redis at the same time."""

    def __init__(self, node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
        self.most = 0
        self._replies: list[asyncio.Future[Any]] = []
        append = node.parts.channel_log.append

        def counted(*args: Any, **options: Any) -> asyncio.Future[Any]:
            self._replies.append(append(*args, **options))
            self.most = max(self.most, sum(not reply.done() for reply in self._replies))
            return self._replies[-1]

        monkeypatch.setattr(node.parts.channel_log, "append", counted)


def held_replies(node: Node, monkeypatch: pytest.MonkeyPatch) -> list[asyncio.Future[Any]]:
    """Have the test reply to a node's posts instead of Redis. Returns the replies, to which each post adds one."""
    replies: list[asyncio.Future[Any]] = []

    def append(*_: Any, **__: Any) -> asyncio.Future[Any]:
        replies.append(asyncio.get_running_loop().create_future())
        return replies[-1]

    monkeypatch.setattr(node.parts.channel_log, "append", append)
    return replies


def post(peer: Peer, channel: str, body: str) -> frames.ChannelMsg:
    return frames.ChannelMsg(channel, peer.path, Plain(body))


async def test_posts_in_a_row_wait_for_redis_together(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client with many in flight pays for few round trips; order and replies are those of one at a time."""
    peers = V2Peers()
    async with node_object(redis_url) as node:
        url = f"ws://{node.address}/"
        ann, bob = await peers.register(url, "ann"), await peers.register(url, "bob")
        await ann.create("ops")
        await ann.join("ops")
        await bob.join("ops")
        flights = Flights(node, monkeypatch)
        bodies = [str(n) for n in range(300)]
        ids = await asyncio.gather(*(ann.post("ops", body) for body in bodies))
        assert flights.most > 1
        assert flights.most <= 64
        await wait_until(lambda: bob.ids("ops") == ids, what="bob has all of them, in the order of the requests")
        assert [each["body"]["text"] for each in bob.events if each["ev"] == "message"] == bodies
        await peers.close()


async def test_other_requests_between_posts_keep_their_place(url: str, peers: Peers) -> None:
    """A join or a leave takes effect between the posts before it and those after it."""
    ann = await peers.register(url, "ann")
    await ann.create("ops")
    await ann.create("dev")
    await ann.join("ops")
    requests: list[tuple[frames.Frame, type[frames.Frame]]] = [
        (post(ann, "ops", "1"), frames.Ack),
        (post(ann, "dev", "not joined"), frames.Error),
        (frames.Join("dev"), frames.Joined),
        (post(ann, "dev", "2"), frames.Ack),
        (post(ann, "ops", "3"), frames.Ack),
        (frames.Ping(), frames.Pong),
        (frames.Leave("ops"), frames.Ack),
        (post(ann, "ops", "not joined any more"), frames.Error),
        (post(ann, "dev", "4"), frames.Ack),
    ]
    replies: list[asyncio.Future[frames.Frame]] = []
    for request, _ in requests:
        replies.append(asyncio.get_running_loop().create_future())
        ann._waiting.append(replies[-1])
        await ann.send(request)
    async with asyncio.timeout(20):
        assert [type(await reply) for reply in replies] == [type_ for _, type_ in requests]
    await ann.join("ops")
    assert await ann.history("ops") == ["1", "3"]
    assert await ann.history("dev") == ["2", "4"]


async def test_a_membership_that_changes_meanwhile_reorders_nothing(pair: tuple[str, str], peers: Peers) -> None:
    """The other node announces a version while posts are in flight: those that it stops are repeated in their order."""
    ann, root = await peers.register(pair[0], "ann"), await peers.register(pair[1], "root")
    await ann.create("ops")
    await ann.join("ops")
    done = asyncio.Event()

    async def change() -> int:
        changes = 0
        while not done.is_set():
            for operation in (admin.Ban("ops", "root"), admin.Unban("ops", "root")):
                await root.ask(frames.Admin(operation), frames.Ack)
                changes += 1
        return changes

    changing = asyncio.create_task(change())
    bodies = [str(n) for n in range(600)]
    for at in range(0, len(bodies), 60):
        await asyncio.gather(*(ann.ask(post(ann, "ops", body), frames.Ack) for body in bodies[at : at + 60]))
    done.set()
    assert await changing > 1
    assert await ann.history("ops") == bodies


async def test_the_replies_wait_for_a_post_that_is_repeated(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client of v1 tells replies apart by their order alone."""
    async with node_object(redis_url) as node, V2Peers() as peers:
        ann = await peers.register(f"ws://{node.address}/", "ann")
        await ann.create("ops")
        await ann.join("ops")
        replies = held_replies(node, monkeypatch)
        posts = [asyncio.create_task(ann.post("ops", body)) for body in ("first", "second")]
        await wait_until(lambda: len(replies) == 2, what="both are in flight")
        replies[0].set_result(1)  # a later version of the membership
        replies[1].set_result(b"7-1")
        await wait_until(lambda: len(replies) == 3, what="the first one is repeated")
        before = len(ann.log)
        replies[2].set_result(b"7-0")
        assert await asyncio.gather(*posts) == ["7-0", "7-1"]
        assert [reply["id"] for reply in ann.log[before:]] == ["7-0", "7-1"]


async def test_what_arrives_while_nothing_more_can_begin_is_not_forgotten(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request that comes when as many posts as may be are in flight, and the end of the session."""
    async with node_object(redis_url) as node, V2Peers() as peers:
        ann = await peers.register(f"ws://{node.address}/", "ann")
        await ann.create("ops")
        await ann.join("ops")
        replies = held_replies(node, monkeypatch)
        posts = [asyncio.create_task(ann.post("ops", str(number))) for number in range(64)]
        await wait_until(lambda: len(replies) == 64, what="all are in flight")
        late = asyncio.create_task(ann.post("ops", "late"))
        received = node.parts.metrics.received_bytes
        before = received._value
        await wait_until(lambda: received._value > before or len(replies) > 64 or unread(node), what="it has arrived")
        for reply in replies[:64]:
            reply.set_result(b"7-1")
        await asyncio.gather(*posts)
        await wait_until(lambda: len(replies) == 65, what="the late one is in flight")
        session = next(iter(node.parts.sessions))
        session.close(CloseReason.IDLE)
        replies[64].set_result(b"7-2")
        assert await late == "7-2"
        assert (await ann.wait_closed())[0] == 4004


def unread(node: Node) -> bool:
    """Tell if a session has a message that was not taken."""
    return any(session._interrupt.__self__.has_more for session in node.parts.sessions)  # type: ignore[attr-defined]


async def test_a_session_ends_after_the_request_that_is_under_way(redis_url: str) -> None:
    """It was closed meanwhile, and the client sends nothing more."""
    async with node_object(redis_url) as node, V2Peers() as peers:
        ann = await peers.register(f"ws://{node.address}/", "ann")
        blocked = BlockedCommand(node, "HVALS")
        await ann.create("ops")
        await ann.join("ops")
        asked = asyncio.create_task(ann.ask("who", channel="ops"))
        await blocked.reached.wait()
        next(iter(node.parts.sessions)).close(CloseReason.IDLE)
        await asyncio.sleep(0)
        blocked.release()
        assert (await ann.wait_closed())[0] == 4004
        assert [each["path"] if isinstance(each, dict) else each for each in (await asked)["sessions"]]


async def test_every_post_in_flight_is_refused_when_redis_goes(redis_process: RedisProcess) -> None:
    """In order, none is left without a reply, and the session goes on when Redis is back."""
    peers = V2Peers()
    async with node_object(redis_process.url, redis_timeout=0.5) as node:
        ann = await peers.register(f"ws://{node.address}/", "ann")
        await ann.create("ops")
        await ann.join("ops")
        redis_process.pause()
        posts = [asyncio.create_task(ann.post("ops", str(n))) for n in range(200)]
        outcomes = await asyncio.gather(*posts, return_exceptions=True)
        assert {type(each) for each in outcomes} == {V2Refused}
        redis_process.resume()
        await wait_until(lambda: node.is_ready, what="the node is ready again")
        assert await ann.post("ops", "after")
        await peers.close()


async def test_a_post_at_a_later_version_waits_for_those_before_it(redis_url: str) -> None:
    """Else it would be in the log before posts that are repeated because of that version."""
    peers = Peers()
    async with node_object(redis_url) as node:
        ann = await peers.register(f"ws://{node.address}/", "ann")
        for channel in ("ops", "dev"):
            await ann.create(channel)
            await ann.join(channel)
        session = next(iter(node.parts.sessions))
        begin = partial(
            node.parts.connections._services.messages.begin_post, session, payload=b"\0\2hi", size=2, key=None
        )
        first = begin("ops", in_flight=())
        assert first is not None
        other = begin("dev", in_flight=[first])
        assert other is not None
        later = msgspec.structs.replace(first, version=first.version + 1)
        assert begin("ops", in_flight=[other, later]) is None
        second = begin("ops", in_flight=[other, first])
        assert second is not None
        assert str(await first.reply) < str(await second.reply)
        await peers.close()


async def test_a_defect_in_a_post_is_a_reply(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The session outlives it, whether the post cannot begin or its reply cannot be read."""
    async with node_object(redis_url) as node, V2Peers() as peers:
        ann = await peers.register(f"ws://{node.address}/", "ann")
        await ann.create("ops")
        await ann.join("ops")
        for name in ("begin_post", "finish_post"):
            with monkeypatch.context() as broken:
                broken.setattr(Messages, name, lambda *_, **__: 1 // 0)
                assert await ann.refusal("send", channel="ops", body={"text": "hi"}) == (
                    "internal: the relay failed to carry this out"
                )
        assert await ann.post("ops", "fine")
