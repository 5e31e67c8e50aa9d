"""A join with `since`: every message once and in order, from the log into live delivery."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
from nacl.signing import SigningKey
from redis import Redis

from relay.app.node import Node
from relay.channels.held_messages import HELD_BYTES
from relay.redis.scripts import ENTER, PAGE
from tests.support.blocking import BlockedCommand, subscriptions_blocked
from tests.support.nodes import node_object, running_node
from tests.support.redis_server import RedisProcess
from tests.support.v2_peer import V2Peer, V2Peers
from tests.support.waiting import pause, wait_until

BOB = SigningKey(b"b" * 32)


class Case:
    """Ann posts in `ops` on one node; bob, on another node, joins again."""

    def __init__(self, node: Node, ann: V2Peer, peers: V2Peers) -> None:
        self.node = node
        self.url = f"ws://{node.address}/"
        self.ann = ann
        self._peers = peers

    async def bob(self, url: str | None = None) -> V2Peer:
        return await self._peers.login(url or self.url, BOB)

    async def cid(self) -> V2Peer:
        """Let another session join on bob's node."""
        cid = await self._peers.register(self.url, "cid")
        await cid.join("ops")
        return cid

    async def post(self, count: int, size: int = 0) -> list[str]:
        return list(await asyncio.gather(*(self.ann.post("ops", f"{i} " + "x" * size) for i in range(count))))

    def block_page(self) -> BlockedCommand:
        """Hold back the pages of the log that the node has read."""
        return BlockedCommand(self.node, PAGE, answers=True)


@pytest.fixture
async def case(redis_url: str, v2_peers: V2Peers) -> AsyncIterator[Case]:
    async with node_object(redis_url) as node, running_node(redis_url) as other:
        ann = await v2_peers.register(other, "ann")
        await (await V2Peer.login(other, BOB, register=("bob", "desk"))).close()
        await ann.create("ops")
        await ann.join("ops")
        yield Case(node, ann, v2_peers)
        await v2_peers.close()


def log_of(store: Redis) -> str:
    (key,) = store.scan_iter("conclave:{c:*}:log")
    return str(key.decode())


async def assert_received(bob: V2Peer, ids: list[str]) -> None:
    await wait_until(lambda: len(bob.ids("ops")) >= len(ids), what=f"{len(ids)} messages have arrived")
    assert bob.ids("ops") == ids


async def test_missed_messages_come_first_and_then_live_ones(case: Case) -> None:
    """The reply, the missed messages, the live ones: in this order, each once, with their positions in the channel."""
    bob = await case.bob()
    assert await bob.join("ops") == {"channel": "ops", "position": "0-0", "admin": False}
    first = await case.ann.post("ops", "1")
    await assert_received(bob, [first])
    await bob.cut()
    missed = await case.post(600)
    bob = await case.bob()
    joined = await bob.join("ops", since=first)
    assert joined == {"channel": "ops", "position": missed[-1], "recovered": True, "admin": False}
    live = await case.ann.post("ops", "live")
    await assert_received(bob, [*missed, live])
    assert bob.log[0]["position"] == missed[-1], "the reply comes first"


async def test_a_position_is_not_older_than_what_was_delivered_live(case: Case, v2_peers: V2Peers) -> None:
    """Two messages overtake the reply of the log: they are not for bob, so his position is after them."""
    cid = await v2_peers.register(case.url, "cid")
    await cid.join("ops")
    bob = await case.bob()
    blocked = BlockedCommand(case.node, ENTER, answers=True)
    joining = asyncio.create_task(bob.join("ops"))
    await blocked.reached.wait()
    posted = await case.post(2)
    await assert_received(cid, posted)
    blocked.release()
    assert (await joining)["position"] == posted[-1]
    live = await case.ann.post("ops", "live")
    await assert_received(bob, [live])


async def test_a_future_position_costs_no_message_after_the_reply(case: Case) -> None:
    """The gap is after that position; messages that are posted before the log is read arrive all the same."""
    posted = await case.post(2)
    bob = await case.bob()
    blocked = BlockedCommand(case.node, PAGE)
    joined = await bob.join("ops", since="999999999999999-0")
    assert joined == {"channel": "ops", "position": posted[-1], "recovered": False, "admin": False}
    await blocked.reached.wait()
    more = await case.post(2)
    blocked.release()
    await assert_received(bob, more)
    assert [event["ev"] for event in bob.events] == ["gap", "message", "message"]


async def test_messages_that_arrive_while_a_page_is_read_come_after_it(case: Case) -> None:
    """Page and live messages overlap: those of the page are not repeated, the others are not lost."""
    posted = await case.post(3)
    bob = await case.bob()
    blocked = case.block_page()
    await bob.join("ops", since=posted[0])
    more = await case.post(5)
    await blocked.reached.wait()
    more += await case.post(5)
    assert bob.events == []
    blocked.release()
    await assert_received(bob, [*posted[1:], *more])
    assert await case.ann.post("ops", "live")


async def test_messages_above_the_bound_of_held_ones_are_read_from_the_log(case: Case) -> None:
    """A flood during the replay costs another page, not memory and not messages."""
    posted = await case.post(3)
    bob = await case.bob()
    blocked = case.block_page()
    await bob.join("ops", since=posted[0])
    await blocked.reached.wait()
    more = await case.post(20, HELD_BYTES // 10)
    blocked.release()
    await assert_received(bob, [*posted[1:], *more])


async def test_other_sessions_get_live_messages_during_a_replay(case: Case, v2_peers: V2Peers) -> None:
    """The replay is for one session only."""
    cid = await v2_peers.register(case.url, "cid")
    await cid.join("ops")
    posted = await case.post(3)
    bob = await case.bob()
    blocked = case.block_page()
    await bob.join("ops", since=posted[0])
    await blocked.reached.wait()
    more = await case.post(3)
    await assert_received(cid, [*posted, *more])
    blocked.release()
    await assert_received(bob, [*posted[1:], *more])
    assert cid.ids("ops") == [*posted, *more]


async def test_trimmed_messages_are_a_gap(case: Case, redis_url: str) -> None:
    """`recovered` is false, the event has the position, and the rest of the log follows."""
    posted = await case.post(10)
    with Redis.from_url(redis_url) as store:
        store.xtrim(log_of(store), minid=posted[6], approximate=False)
    bob = await case.bob()
    joined = await bob.join("ops", since=posted[2])
    assert joined == {"channel": "ops", "position": posted[-1], "recovered": False, "admin": False}
    await assert_received(bob, posted[6:])
    assert bob.events[0] == {"ev": "gap", "channel": "ops", "after": posted[2]}
    assert len(bob.of("gap")) == 1
    await bob.cut()
    bob = await case.bob()
    assert (await bob.join("ops", since="0-0"))["recovered"] is False, "the channel's beginning is gone too"
    await assert_received(bob, posted[6:])


async def test_a_join_after_a_gap_gets_no_gap_event(case: Case, v2_peers: V2Peers, redis_url: str) -> None:
    """The log has lost messages for the sessions in the channel; a session that joins later has lost nothing."""
    cid = await v2_peers.register(case.url, "cid")
    await cid.join("ops")
    bob = await case.bob()
    refill = BlockedCommand(case.node, PAGE)
    with subscriptions_blocked(redis_url) as store:
        posted = await case.post(5)
        store.xtrim(log_of(store), minid=posted[3], approximate=False)
    await refill.reached.wait()
    assert (await bob.join("ops"))["position"] == posted[-1]
    refill.release()
    live = await case.ann.post("ops", "live")
    await assert_received(cid, [*posted[3:], live])
    assert cid.of("gap") == [{"ev": "gap", "channel": "ops", "after": "0-0"}]
    await assert_received(bob, [live])
    assert bob.of("gap") == []


async def test_a_log_that_is_gone_is_a_gap(case: Case, redis_url: str) -> None:
    """The log had messages and is empty now: the session is live from here on."""
    posted = await case.post(5)
    with Redis.from_url(redis_url) as store:
        store.delete(log_of(store))
    bob = await case.bob()
    assert (await bob.join("ops", since=posted[1]))["recovered"] is False
    await wait_until(lambda: bob.of("gap"), what="the gap is reported")
    live = await case.ann.post("ops", "live")
    await assert_received(bob, [live])
    assert bob.of("gap") == [{"ev": "gap", "channel": "ops", "after": posted[1]}]


async def test_messages_that_are_trimmed_during_a_replay_are_a_gap(case: Case, redis_url: str) -> None:
    """The event comes at the place of the gap, in the middle."""
    posted = await case.post(600)
    bob = await case.bob()
    blocked = case.block_page()
    assert (await bob.join("ops", since=posted[0]))["recovered"] is True
    await blocked.reached.wait()
    with Redis.from_url(redis_url) as store:
        store.xtrim(log_of(store), minid=posted[590], approximate=False)
    blocked.release()
    await wait_until(lambda: bob.ids("ops")[-1:] == [posted[-1]], what="the replay ends")
    order = [event.get("id", "gap") for event in bob.events]
    assert order == [*posted[1:501], "gap", *posted[590:]]
    assert bob.of("gap")[0]["after"] == posted[500]


NO_POSITIONS = ("", "x", "1", "1-", "-1", "1-1-1", "01-0", "1-0 ", f"{10**15}-0", "1-00", "\uff11-0")


async def test_an_invalid_position_is_refused(case: Case) -> None:
    """With a clear text, and without a join."""
    bob = await case.bob()
    for since in NO_POSITIONS:
        assert (await bob.refusal("join", channel="ops", since=since)).startswith("malformed: invalid position")
        assert (await bob.refusal("history", channel="ops", after=since)).startswith("malformed: invalid position")
        assert (await bob.refusal("history", channel="ops", before=since)).startswith("malformed: invalid position")
        assert (await bob.refusal("send", channel="ops", body={"text": ""})).startswith("unauthorized")


@pytest.mark.parametrize(
    ("op", "fields", "reason"),
    [
        ("ban", {"user": "bob"}, "banned"),
        ("channel.delete", {}, "deleted"),
    ],
)
async def test_the_loss_of_the_channel_ends_a_replay(case: Case, op: str, fields: dict[str, str], reason: str) -> None:
    """Messages read before the removal may still arrive, messages posted after it never do."""
    posted = await case.post(3)
    bob = await case.bob()
    blocked = case.block_page()
    await bob.join("ops", since=posted[0])
    await blocked.reached.wait()
    await case.ann.ask(op, channel="ops", **fields)
    if reason != "deleted":
        await case.ann.post("ops", "secret")
    blocked.release()
    await wait_until(lambda: bob.of("left"), what="bob is told")
    assert bob.events[-1] == {"ev": "left", "channel": "ops", "reason": reason}
    assert await bob.ask("ping") == {}
    assert set(bob.ids("ops")) <= set(posted[1:])
    assert len(bob.of("left")) == 1
    assert (await bob.refusal("history", channel="ops")).startswith(("unauthorized", "not_found"))


async def test_a_page_that_was_read_after_a_removal_is_not_sent(case: Case) -> None:
    """A node that missed the announcement of the removal learns of it from the page, before it sends it."""
    posted = await case.post(3)
    bob = await case.bob()
    reading = BlockedCommand(case.node, PAGE)
    await bob.join("ops", since=posted[0])
    await reading.reached.wait()
    await case.ann.ask("ban", channel="ops", user="bob")
    await case.ann.post("ops", "secret")
    reading.release()
    await wait_until(lambda: bob.of("left"), what="bob is told")
    assert await bob.ask("ping") == {}
    assert bob.messages_in("ops") == []


async def test_leaving_ends_a_replay(case: Case) -> None:
    """A join without `since` afterwards gets only later messages."""
    posted = await case.post(3)
    bob = await case.bob()
    blocked = case.block_page()
    await bob.join("ops", since=posted[0])
    await blocked.reached.wait()
    await bob.ask("leave", channel="ops")
    await bob.join("ops")
    blocked.release()
    live = await case.ann.post("ops", "live")
    await assert_received(bob, [live])


async def test_a_second_join_with_since_begins_anew(case: Case) -> None:
    """During a replay and after it: the last one counts, and gets everything after its position."""
    posted = await case.post(6)
    bob = await case.bob()
    blocked = case.block_page()
    await bob.join("ops", since=posted[3])
    await blocked.reached.wait()
    assert (await bob.join("ops", since=posted[1]))["recovered"] is True
    blocked.release()
    await assert_received(bob, posted[2:])
    await bob.join("ops", since=posted[4])
    await assert_received(bob, [*posted[2:], posted[5]])
    live = await case.ann.post("ops", "live")
    await assert_received(bob, [*posted[2:], posted[5], live])


async def test_a_client_that_leaves_during_a_replay_leaves_nothing_behind(case: Case) -> None:
    """No task, no subscriber."""
    posted = await case.post(3)
    bob = await case.bob()
    blocked = case.block_page()
    await bob.join("ops", since=posted[0])
    await blocked.reached.wait()
    await bob.cut()
    await wait_until(lambda: len(case.node.parts.sessions) == 0, what="the node has noticed")
    blocked.release()
    replays = case.node.parts.fanout._replays
    await wait_until(lambda: not replays._tasks._tasks, what="the replay has ended")


async def test_a_rename_during_a_replay(case: Case) -> None:
    """It goes on under the new name."""
    posted = await case.post(3)
    bob = await case.bob()
    blocked = case.block_page()
    await bob.join("ops", since=posted[0])
    await blocked.reached.wait()
    await case.ann.ask("channel.rename", channel="ops", to="dev")
    blocked.release()
    await wait_until(lambda: bob.of("renamed"), what="bob is told")
    live = await case.ann.post("dev", "live")
    await wait_until(lambda: bob.ids("dev")[-1:] == [live], what="bob receives under the new name")
    assert bob.of("renamed") == [{"ev": "renamed", "channel": "ops", "to": "dev"}]
    assert bob.ids("ops") + bob.ids("dev") == [*posted[1:], live]


async def test_a_rename_that_overtakes_a_join_is_reported_with_the_joined_name(case: Case) -> None:
    """The node knows the new name already; the event to the session has the old one, which it joined."""
    cid = await case.cid()
    bob = await case.bob()
    blocked = BlockedCommand(case.node, ENTER)
    joining = asyncio.create_task(bob.join("ops"))
    await blocked.reached.wait()
    await case.ann.ask("channel.rename", channel="ops", to="dev")
    await wait_until(lambda: cid.of("renamed"), what="the node knows the new name")
    blocked.release()
    assert (await joining)["channel"] == "ops"
    await wait_until(lambda: bob.of("renamed"), what="bob is told")
    assert bob.of("renamed") == cid.of("renamed") == [{"ev": "renamed", "channel": "ops", "to": "dev"}]


async def test_a_slow_client_may_resume_more_than_a_slow_reader_may_have(case: Case) -> None:
    """The pace is the client's: what waits for it is bounded, and it is not closed."""
    posted: list[str] = []
    for _ in range(10):
        posted += await case.post(100, 10_000)  # 10 MB; a session with 8 MiB in its outbox is a slow reader
    bob = await case.bob()
    bob.pause()
    joining = asyncio.create_task(bob.join("ops", since=posted[0]))
    session = next(iter(case.node.parts.sessions))
    await wait_until(lambda: session.outbox.buffered > 100_000, what="the socket is full")
    await pause(0.3)
    highest = session.outbox.buffered
    live = await case.ann.post("ops", "live")
    bob.resume()
    await joining
    await assert_received(bob, [*posted[1:], live])
    assert highest < 2 * 1024 * 1024


@asynccontextmanager
async def slow_connection(url: str) -> AsyncIterator[str]:
    """A connection to a node that carries some hundred kilobytes per second to the client, and hardly buffers."""
    host, port = url.removeprefix("ws://").rstrip("/").split(":")

    async def carry(client: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        with socket.socket() as there:
            there.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
            there.setblocking(False)
            await loop.sock_connect(there, (host, int(port)))

            async def up() -> None:
                while data := await client.read(4096):
                    await loop.sock_sendall(there, data)

            with suppress(ConnectionError):
                async with asyncio.TaskGroup() as tasks:
                    upwards = tasks.create_task(up())
                    while data := await loop.sock_recv(there, 16_384):
                        writer.write(data)
                        await writer.drain()
                        await pause(len(data) / 400_000)
                    upwards.cancel()
        writer.close()

    async with await asyncio.start_server(carry, "127.0.0.1", 0) as server:
        yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"


async def test_a_slow_but_steady_reader_keeps_its_session(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if it has sent a request: while the reply waits, no pings are read, but the client is not dead."""
    monkeypatch.setattr("relay.transport.stalls.CHECK_SECONDS", 0.1)
    for room in ("membership", "janitor"):
        monkeypatch.setattr(f"relay.cluster.{room}.BEAT_SECONDS", 0.2)
    monkeypatch.setattr(case.node.parts.janitor, "_idle_seconds", 1.5)
    posted = [await case.ann.post("ops", "x" * 900_000) for _ in range(2)]
    async with slow_connection(case.url) as url:
        bob = await case.bob(url)
        await bob.join("ops", since="0-0")
        while len(bob.ids("ops")) < len(posted) and not bob.is_closed:
            await bob.send({"id": 77, "op": "ping"})
            await pause(0.4)
        assert bob.ids("ops") == posted
        assert await bob.ask("ping") == {}


async def test_requests_are_answered_during_a_replay(case: Case) -> None:
    """A session that catches up for minutes must be able to ping."""
    posted = await case.post(3)
    bob = await case.bob()
    blocked = case.block_page()
    await bob.join("ops", since=posted[0])
    await blocked.reached.wait()
    assert await bob.ask("ping") == {}
    assert len((await bob.ask("history", channel="ops"))["messages"]) == 3
    blocked.release()
    await assert_received(bob, posted[1:])


async def test_an_outage_of_the_store_during_a_replay_is_waited_out(redis_process: RedisProcess) -> None:
    """No gap, no end: it goes on when Redis is back."""
    peers = V2Peers()
    async with node_object(redis_process.url, redis_timeout=0.5) as node:
        url = f"ws://{node.address}/"
        ann = await peers.register(url, "ann")
        bob = await peers.register(url, "bob")
        await ann.create("ops")
        await ann.join("ops")
        posted = [await ann.post("ops", str(i)) for i in range(5)]
        blocked = BlockedCommand(node, PAGE)
        await bob.join("ops", since=posted[0])
        await blocked.reached.wait()
        redis_process.kill()
        blocked.release()
        await wait_until(lambda: not node.parts.client.is_up, what="the node has noticed")
        await pause(0.5)
        assert bob.events == []
        await redis_process.start()
        await assert_received(bob, posted[1:])
        live = await ann.post("ops", "live")
        await assert_received(bob, [*posted[1:], live])
        await peers.close()
