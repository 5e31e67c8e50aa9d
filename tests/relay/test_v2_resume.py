"""Coming back with `since`: every message once and in order, up to and into what is said live."""

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
from tests.support.blocking import Gate, nodes_that_hear_no_messages
from tests.support.nodes import node_object, running_node
from tests.support.redis_server import RedisProcess
from tests.support.v2_peer import V2Peer, V2Peers
from tests.support.waiting import pause, wait_until

BOB = SigningKey(b"b" * 32)


class Case:
    """Ann on one node says things in `ops`; bob was there, on another, and comes back."""

    def __init__(self, node: Node, ann: V2Peer, peers: V2Peers) -> None:
        self.node = node
        self.url = f"ws://{node.address}/"
        self.ann = ann
        self._peers = peers

    async def bob(self, url: str | None = None) -> V2Peer:
        return await self._peers.login(url or self.url, BOB)

    async def cid(self) -> V2Peer:
        """Have somebody else on bob's node listen."""
        cid = await self._peers.register(self.url, "cid")
        await cid.join("ops")
        return cid

    async def say(self, count: int, size: int = 0) -> list[str]:
        return list(await asyncio.gather(*(self.ann.post("ops", f"{i} " + "x" * size) for i in range(count))))

    def gate(self) -> Gate:
        """Hold back the pages of the log that the node has read."""
        return Gate(self.node, PAGE, answers=True)


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


async def hears(bob: V2Peer, ids: list[str]) -> None:
    await wait_until(lambda: len(bob.ids("ops")) >= len(ids), what=f"{len(ids)} messages are heard")
    assert bob.ids("ops") == ids


async def test_what_was_said_meanwhile_comes_first_and_then_what_is_said(case: Case) -> None:
    """The reply, the missed messages, the live ones: in this order, each once, with their places in the channel."""
    bob = await case.bob()
    assert await bob.join("ops") == {"channel": "ops", "position": "0-0", "admin": False}
    first = await case.ann.post("ops", "1")
    await hears(bob, [first])
    await bob.cut()
    missed = await case.say(600)
    bob = await case.bob()
    joined = await bob.join("ops", since=first)
    assert joined == {"channel": "ops", "position": missed[-1], "recovered": True, "admin": False}
    live = await case.ann.post("ops", "live")
    await hears(bob, [*missed, live])
    assert bob.log[0]["position"] == missed[-1], "the reply comes first"


async def test_a_position_is_not_older_than_what_live_delivery_has_handed_out(case: Case, v2_peers: V2Peers) -> None:
    """Two messages overtake the answer of the log: they are not for bob, so his position is behind them."""
    cid = await v2_peers.register(case.url, "cid")
    await cid.join("ops")
    bob = await case.bob()
    gate = Gate(case.node, ENTER, answers=True)
    joining = asyncio.create_task(bob.join("ops"))
    await gate.reached.wait()
    said = await case.say(2)
    await hears(cid, said)
    gate.open()
    assert (await joining)["position"] == said[-1]
    live = await case.ann.post("ops", "live")
    await hears(bob, [live])


async def test_what_follows_the_reply_is_not_lost_with_a_position_that_is_yet_to_come(case: Case) -> None:
    """The gap is behind that position; what is said before the log is looked at comes all the same."""
    said = await case.say(2)
    bob = await case.bob()
    gate = Gate(case.node, PAGE)
    joined = await bob.join("ops", since="999999999999999-0")
    assert joined == {"channel": "ops", "position": said[-1], "recovered": False, "admin": False}
    await gate.reached.wait()
    more = await case.say(2)
    gate.open()
    await hears(bob, more)
    assert [event["ev"] for event in bob.events] == ["gap", "message", "message"]


async def test_what_is_said_while_the_log_is_read_comes_behind_it(case: Case) -> None:
    """The join is where both overlap: what is in the page is not repeated, what is not is not forgotten."""
    said = await case.say(3)
    bob = await case.bob()
    gate = case.gate()
    await bob.join("ops", since=said[0])
    more = await case.say(5)
    await gate.reached.wait()
    more += await case.say(5)
    assert bob.events == []
    gate.open()
    await hears(bob, [*said[1:], *more])
    assert await case.ann.post("ops", "live")


async def test_more_than_is_held_back_is_read_from_the_log(case: Case) -> None:
    """A flood during the replay costs another page, not memory and not messages."""
    said = await case.say(3)
    bob = await case.bob()
    gate = case.gate()
    await bob.join("ops", since=said[0])
    await gate.reached.wait()
    more = await case.say(20, HELD_BYTES // 10)
    gate.open()
    await hears(bob, [*said[1:], *more])


async def test_others_hear_live_meanwhile(case: Case, v2_peers: V2Peers) -> None:
    """The replay is for one session only."""
    cid = await v2_peers.register(case.url, "cid")
    await cid.join("ops")
    said = await case.say(3)
    bob = await case.bob()
    gate = case.gate()
    await bob.join("ops", since=said[0])
    await gate.reached.wait()
    more = await case.say(3)
    await hears(cid, [*said, *more])
    gate.open()
    await hears(bob, [*said[1:], *more])
    assert cid.ids("ops") == [*said, *more]


async def test_what_was_trimmed_is_a_gap(case: Case, redis_url: str) -> None:
    """`recovered` is false, the event says from where on, and what the log still has follows."""
    said = await case.say(10)
    with Redis.from_url(redis_url) as store:
        store.xtrim(log_of(store), minid=said[6], approximate=False)
    bob = await case.bob()
    joined = await bob.join("ops", since=said[2])
    assert joined == {"channel": "ops", "position": said[-1], "recovered": False, "admin": False}
    await hears(bob, said[6:])
    assert bob.events[0] == {"ev": "gap", "channel": "ops", "after": said[2]}
    assert len(bob.of("gap")) == 1
    await bob.cut()
    bob = await case.bob()
    assert (await bob.join("ops", since="0-0"))["recovered"] is False, "the channel's beginning is gone too"
    await hears(bob, said[6:])


async def test_who_came_in_behind_a_gap_is_not_told_of_it(case: Case, v2_peers: V2Peers, redis_url: str) -> None:
    """The log has lost messages for the sessions in the channel; a session that joins later has lost nothing."""
    cid = await v2_peers.register(case.url, "cid")
    await cid.join("ops")
    bob = await case.bob()
    refill = Gate(case.node, PAGE)
    with nodes_that_hear_no_messages(redis_url) as store:
        said = await case.say(5)
        store.xtrim(log_of(store), minid=said[3], approximate=False)
    await refill.reached.wait()
    assert (await bob.join("ops"))["position"] == said[-1]
    refill.open()
    live = await case.ann.post("ops", "live")
    await hears(cid, [*said[3:], live])
    assert cid.of("gap") == [{"ev": "gap", "channel": "ops", "after": "0-0"}]
    await hears(bob, [live])
    assert bob.of("gap") == []


async def test_a_log_that_is_gone_is_a_gap(case: Case, redis_url: str) -> None:
    """Nothing is left of it, and something was said: the session is live from here on."""
    said = await case.say(5)
    with Redis.from_url(redis_url) as store:
        store.delete(log_of(store))
    bob = await case.bob()
    assert (await bob.join("ops", since=said[1]))["recovered"] is False
    await wait_until(lambda: bob.of("gap"), what="the gap is told")
    live = await case.ann.post("ops", "live")
    await hears(bob, [live])
    assert bob.of("gap") == [{"ev": "gap", "channel": "ops", "after": said[1]}]


async def test_what_is_trimmed_during_a_replay_is_a_gap(case: Case, redis_url: str) -> None:
    """Told where it is, in the middle."""
    said = await case.say(600)
    bob = await case.bob()
    gate = case.gate()
    assert (await bob.join("ops", since=said[0]))["recovered"] is True
    await gate.reached.wait()
    with Redis.from_url(redis_url) as store:
        store.xtrim(log_of(store), minid=said[590], approximate=False)
    gate.open()
    await wait_until(lambda: bob.ids("ops")[-1:] == [said[-1]], what="the replay ends")
    order = [event.get("id", "gap") for event in bob.events]
    assert order == [*said[1:501], "gap", *said[590:]]
    assert bob.of("gap")[0]["after"] == said[500]


NO_POSITIONS = ("", "x", "1", "1-", "-1", "1-1-1", "01-0", "1-0 ", f"{10**15}-0", "1-00", "\uff11-0")


async def test_what_is_no_position_is_refused(case: Case) -> None:
    """Clearly, and the session has not joined by that."""
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
async def test_who_loses_the_channel_hears_no_more_of_the_replay(
    case: Case, op: str, fields: dict[str, str], reason: str
) -> None:
    """Messages read before the removal may still arrive, messages posted after it never do."""
    said = await case.say(3)
    bob = await case.bob()
    gate = case.gate()
    await bob.join("ops", since=said[0])
    await gate.reached.wait()
    await case.ann.ask(op, channel="ops", **fields)
    if reason != "deleted":
        await case.ann.post("ops", "secret")
    gate.open()
    await wait_until(lambda: bob.of("left"), what="bob is told")
    assert bob.events[-1] == {"ev": "left", "channel": "ops", "reason": reason}
    assert await bob.ask("ping") == {}
    assert set(bob.ids("ops")) <= set(said[1:])
    assert len(bob.of("left")) == 1
    assert (await bob.refusal("history", channel="ops")).startswith(("unauthorized", "not_found"))


async def test_a_page_that_was_read_after_a_removal_is_not_handed_out(case: Case) -> None:
    """A node that has not heard of the removal learns of it from the page, before it hands it out."""
    said = await case.say(3)
    bob = await case.bob()
    reading = Gate(case.node, PAGE)
    await bob.join("ops", since=said[0])
    await reading.reached.wait()
    await case.ann.ask("ban", channel="ops", user="bob")
    await case.ann.post("ops", "secret")
    reading.open()
    await wait_until(lambda: bob.of("left"), what="bob is told")
    assert await bob.ask("ping") == {}
    assert bob.said("ops") == []


async def test_leaving_ends_a_replay(case: Case) -> None:
    """And coming in again without `since` hears only what is said from then on."""
    said = await case.say(3)
    bob = await case.bob()
    gate = case.gate()
    await bob.join("ops", since=said[0])
    await gate.reached.wait()
    await bob.ask("leave", channel="ops")
    await bob.join("ops")
    gate.open()
    live = await case.ann.post("ops", "live")
    await hears(bob, [live])


async def test_a_second_join_with_since_begins_anew(case: Case) -> None:
    """During a replay and after it: the last one counts, and gets everything behind its position."""
    said = await case.say(6)
    bob = await case.bob()
    gate = case.gate()
    await bob.join("ops", since=said[3])
    await gate.reached.wait()
    assert (await bob.join("ops", since=said[1]))["recovered"] is True
    gate.open()
    await hears(bob, said[2:])
    await bob.join("ops", since=said[4])
    await hears(bob, [*said[2:], said[5]])
    live = await case.ann.post("ops", "live")
    await hears(bob, [*said[2:], said[5], live])


async def test_a_client_that_leaves_during_a_replay_leaves_nothing_behind(case: Case) -> None:
    """No task, no listener."""
    said = await case.say(3)
    bob = await case.bob()
    gate = case.gate()
    await bob.join("ops", since=said[0])
    await gate.reached.wait()
    await bob.cut()
    await wait_until(lambda: len(case.node.parts.sessions) == 0, what="the node has noticed")
    gate.open()
    replays = case.node.parts.fanout._replays
    await wait_until(lambda: not replays._tasks._tasks, what="the replay has ended")


async def test_a_rename_during_a_replay(case: Case) -> None:
    """It goes on under the new name."""
    said = await case.say(3)
    bob = await case.bob()
    gate = case.gate()
    await bob.join("ops", since=said[0])
    await gate.reached.wait()
    await case.ann.ask("channel.rename", channel="ops", to="dev")
    gate.open()
    await wait_until(lambda: bob.of("renamed"), what="bob is told")
    live = await case.ann.post("dev", "live")
    await wait_until(lambda: bob.ids("dev")[-1:] == [live], what="bob hears under the new name")
    assert bob.of("renamed") == [{"ev": "renamed", "channel": "ops", "to": "dev"}]
    assert bob.ids("ops") + bob.ids("dev") == [*said[1:], live]


async def test_a_rename_that_overtakes_a_join_is_told_with_the_name_that_was_joined(case: Case) -> None:
    """The node knows the new name already; the session that came in by the old one is told of that one."""
    cid = await case.cid()
    bob = await case.bob()
    gate = Gate(case.node, ENTER)
    joining = asyncio.create_task(bob.join("ops"))
    await gate.reached.wait()
    await case.ann.ask("channel.rename", channel="ops", to="dev")
    await wait_until(lambda: cid.of("renamed"), what="the node knows the new name")
    gate.open()
    assert (await joining)["channel"] == "ops"
    await wait_until(lambda: bob.of("renamed"), what="bob is told")
    assert bob.of("renamed") == cid.of("renamed") == [{"ev": "renamed", "channel": "ops", "to": "dev"}]


async def test_a_slow_client_may_resume_more_than_a_slow_reader_may_have(case: Case) -> None:
    """The pace is the client's: what waits for it is bounded, and it is not closed."""
    said: list[str] = []
    for _ in range(10):
        said += await case.say(100, 10_000)  # 10 MB; a slow reader is whoever has 8 MiB waiting
    bob = await case.bob()
    bob.pause()
    joining = asyncio.create_task(bob.join("ops", since=said[0]))
    session = next(iter(case.node.parts.sessions))
    await wait_until(lambda: session.outbox.buffered > 100_000, what="the socket is full")
    await pause(0.3)
    highest = session.outbox.buffered
    live = await case.ann.post("ops", "live")
    bob.resume()
    await joining
    await hears(bob, [*said[1:], live])
    assert highest < 2 * 1024 * 1024


@asynccontextmanager
async def slow_way(url: str) -> AsyncIterator[str]:
    """A way to a node that carries some hundred kilobytes per second towards the client, and hardly buffers."""
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


async def test_who_reads_slowly_but_steadily_keeps_the_session(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if it asks for something meanwhile: while the answer waits, no pings are read, but it is no dead peer."""
    monkeypatch.setattr("relay.transport.stalls.CHECK_SECONDS", 0.1)
    monkeypatch.setattr("relay.cluster.membership.BEAT_SECONDS", 0.2)
    monkeypatch.setattr(case.node.parts.janitor, "_idle_seconds", 1.5)
    said = [await case.ann.post("ops", "x" * 900_000) for _ in range(2)]
    async with slow_way(case.url) as url:
        bob = await case.bob(url)
        await bob.join("ops", since="0-0")
        while len(bob.ids("ops")) < len(said) and not bob.is_closed:
            await bob.send({"id": 77, "op": "ping"})
            await pause(0.4)
        assert bob.ids("ops") == said
        assert await bob.ask("ping") == {}


async def test_requests_are_answered_during_a_replay(case: Case) -> None:
    """A session that catches up for minutes must be able to ping."""
    said = await case.say(3)
    bob = await case.bob()
    gate = case.gate()
    await bob.join("ops", since=said[0])
    await gate.reached.wait()
    assert await bob.ask("ping") == {}
    assert len((await bob.ask("history", channel="ops"))["messages"]) == 3
    gate.open()
    await hears(bob, said[1:])


async def test_an_outage_of_the_store_during_a_replay_is_waited_out(redis_process: RedisProcess) -> None:
    """No hole, no end: it goes on when Redis is back."""
    peers = V2Peers()
    async with node_object(redis_process.url, redis_timeout=0.5) as node:
        url = f"ws://{node.address}/"
        ann = await peers.register(url, "ann")
        bob = await peers.register(url, "bob")
        await ann.create("ops")
        await ann.join("ops")
        said = [await ann.post("ops", str(i)) for i in range(5)]
        gate = Gate(node, PAGE)
        await bob.join("ops", since=said[0])
        await gate.reached.wait()
        redis_process.kill()
        gate.open()
        await wait_until(lambda: not node.parts.client.is_up, what="the node has noticed")
        await pause(0.5)
        assert bob.events == []
        await redis_process.start()
        await hears(bob, said[1:])
        live = await ann.post("ops", "live")
        await hears(bob, [*said[1:], live])
        await peers.close()
