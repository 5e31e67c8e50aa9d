"""A node that reads from a near replica: as exact as one that does not, whatever the replica does."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from redis import Redis
from structlog.testing import capture_logs

from conclave.model import Visibility
from conclave.protocol.v1 import admin, frames
from tests.support.moderation import rule
from tests.support.nodes import running_node
from tests.support.peer import Peer, Peers
from tests.support.redis_server import RedisProcess
from tests.support.replica import Pair, replicated
from tests.support.traffic import Talker, everybody_heard, more_is_said, talking
from tests.support.v2_peer import V2Peers
from tests.support.waiting import pause, wait_until


class House:
    """A node at the primary and one at the replica, and people who come and go."""

    def __init__(self, pair: Pair, far: str, near: str) -> None:
        self.pair = pair
        self.far = far
        """The node that knows of no replica."""
        self.near = near
        self.peers = Peers()
        self.v2_peers = V2Peers()

    async def conversation(self) -> tuple[Peer, Peer]:
        """Ann, far, and bob, near, in a channel; both have been heard."""
        ann, bob = await self.peers.register(self.far, "ann"), await self.peers.register(self.near, "bob")
        await ann.create("ops")
        await ann.join("ops")
        await bob.join("ops")
        await ann.post("ops", "before")
        await wait_until(lambda: bob.bodies, what="live delivery works")
        return ann, bob

    def listens_to(self, server: RedisProcess) -> bool:
        """Tell whether the near node gets live messages from a server; the other subscribes to `ops` at the primary."""
        with Redis.from_url(server.url) as client:
            (topic,) = self.pair.topics(self.pair.primary)
            ((_, count),) = client.pubsub_numsub(topic)
        return int(count) == (2 if server is self.pair.primary else 1)

    async def moved_to(self, server: RedisProcess) -> None:
        await wait_until(lambda: self.listens_to(server), timeout=40, what="the near node listens elsewhere")

    async def get(self, path: str) -> tuple[int, str]:
        url = self.near.replace("ws://", "http://").rstrip("/") + path
        async with aiohttp.ClientSession() as http, http.get(url) as response:
            return response.status, await response.text()

    async def counted(self, metric: str) -> float:
        found = re.search(rf"^{metric}_total (\S+)$", (await self.get("/metrics"))[1], re.MULTILINE)
        assert found is not None
        return float(found[1])

    async def is_ready(self) -> bool:
        return (await self.get("/ready"))[0] == 200


@asynccontextmanager
async def house_of(pair: Pair) -> AsyncIterator[House]:
    async with (
        running_node(pair.primary.url) as far,
        running_node(pair.primary.url, read_url=pair.replica.url, redis_timeout=1.0) as near,
    ):
        house = House(pair, far, near)
        try:
            yield house
        finally:
            pair.link.flow()
            await house.peers.close()
            await house.v2_peers.close()


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with replicated(tmp_path) as pair, house_of(pair) as house:
        yield house


async def test_live_messages_and_pages_come_from_the_replica(house: House) -> None:
    """A message crosses an ocean once, not once per node and reader."""
    ann, bob = await house.conversation()
    eve = await house.v2_peers.register(house.near, "eve")
    first = (await eve.join("ops"))["position"]
    assert house.listens_to(house.pair.replica)
    assert not house.listens_to(house.pair.primary)
    for n in range(600):
        await ann.post("ops", str(n))
    await bob.post("ops", "mine")
    await wait_until(lambda: len(bob.bodies) == 601 and len(eve.texts("ops")) == 601, what="both hear all")
    await house.pair.in_step()
    told = ["before", *map(str, range(600)), "mine"]
    assert eve.texts("ops") == told[1:]
    before = house.pair.calls(house.pair.replica)
    assert await bob.history("ops") == told
    assert [row["body"]["text"] for row in await eve.history("ops")] == told
    newest = await eve.ask("history", channel="ops", limit=3)
    assert [row["body"]["text"] for row in newest["messages"]] == told[-3:]
    middle = await eve.ask("history", channel="ops", before=newest["messages"][0]["id"], limit=2)
    assert [row["body"]["text"] for row in middle["messages"]] == told[-5:-3]
    assert house.pair.calls(house.pair.replica) - before >= 5
    again = await house.v2_peers.register(house.near, "again")
    assert (await again.join("ops", since=first))["recovered"]
    await wait_until(lambda: len(again.texts("ops")) == 601, what="what was missed comes")
    assert again.texts("ops") == told[1:]


async def test_nothing_is_missing_or_called_lost_while_the_replica_lags(house: House) -> None:
    """Its log ends earlier than the primary's; a request at that moment must not show it."""
    ann, bob = await house.conversation()
    eve = await house.v2_peers.register(house.near, "eve")
    since = (await eve.join("ops"))["position"]
    await house.pair.in_step()
    house.pair.link.stall()
    for n in range(40):
        await ann.post("ops", str(n))
    told = ["before", *map(str, range(40))]
    assert await bob.history("ops") == told
    assert [row["body"]["text"] for row in await eve.history("ops")] == told
    newest = await eve.ask("history", channel="ops", limit=1)
    assert newest["messages"][0]["body"]["text"] == "39"
    after = await eve.ask("history", channel="ops", after_ts=0, limit=500)
    assert len(after["messages"]) == 41
    assert not after.get("lost")
    dan = await house.v2_peers.register(house.near, "dan")
    assert (await dan.join("ops", since=since))["recovered"]
    await wait_until(lambda: dan.texts("ops") == told[1:], what="what dan missed comes from the primary")
    with Redis.from_url(house.pair.replica.url) as client:
        client.client_kill_filter(_type="pubsub")
    await wait_until(lambda: bob.bodies == told, what="the gap is filled from the primary")
    house.pair.link.flow()
    await ann.post("ops", "after")
    for peer in (eve, dan):
        await wait_until(lambda peer=peer: peer.texts("ops") == [*told[1:], "after"], what="all goes on")  # type: ignore[misc]
        assert peer.of("gap") == []
    await wait_until(lambda: bob.bodies[-1] == "after", what="bob hears it")
    assert bob.bodies == [*told, "after"]
    assert await house.counted("conclave_history_lost") == 0


async def test_a_removed_party_reads_nothing_because_a_replica_does_not_know_yet(house: House) -> None:
    """Membership is asked of the primary; the replica would still grant access."""
    ann, bob = await house.conversation()
    eve = await house.v2_peers.register(house.near, "eve")
    await eve.join("ops")
    await house.pair.in_step()
    house.pair.link.stall()
    await rule(ann, admin.SetVisibility("ops", Visibility.PRIVATE))
    assert "not a member" in await bob.refusal(frames.ReadSince("ops", 0))
    assert "not a member" in await eve.refusal("history", channel="ops")
    await ann.post("ops", "among us")
    house.pair.link.flow()
    await house.pair.in_step()
    await wait_until(lambda: eve.of("left"), what="eve is told")
    await ann.post("ops", "still")
    assert "among us" not in bob.bodies
    assert eve.texts("ops") == []


async def test_a_page_of_milliseconds_is_complete_also_from_a_replica(house: House) -> None:
    """The next page by milliseconds begins after the last one, which therefore has to be complete."""
    ann, bob = await house.conversation()
    talkers = [Talker(await house.peers.register(house.far, f"t{i}"), "ops", f"t{i}") for i in range(4)]
    for talker in talkers:
        await talker.peer.join("ops")
    read: list[str] = []
    since = 0
    async with talking(talkers):
        await more_is_said(talkers, 10)
        for _ in range(200):
            page = await bob.page("ops", since)
            read += [row.payload.text for row in page if not isinstance(row.payload, frames.RawPayload)]  # type: ignore[union-attr]
            since = page[-1].ts_ms if page else since
    while page := await bob.page("ops", since):
        read += [row.payload.text for row in page if not isinstance(row.payload, frames.RawPayload)]  # type: ignore[union-attr]
        since = page[-1].ts_ms
    assert read == await ann.history("ops")


@pytest.mark.long
async def test_a_replica_that_falls_behind_is_left_and_used_again(house: House) -> None:
    """Live messages do not wait for it longer than a few seconds, and the node is ready all the time."""
    ann, bob = await house.conversation()
    with capture_logs() as logged:
        house.pair.link.stall()
        await ann.post("ops", "during")
        await house.moved_to(house.pair.primary)
        await wait_until(lambda: bob.bodies == ["before", "during"], what="bob hears what the replica held back")
        await ann.post("ops", "live")
        await wait_until(lambda: bob.bodies[-1] == "live", what="bob hears the primary")
        assert await house.is_ready()
        house.pair.link.flow()
        await house.moved_to(house.pair.replica)
    await ann.post("ops", "after")
    await wait_until(lambda: bob.bodies == ["before", "during", "live", "after"], what="bob hears the replica again")
    assert [each["event"] for each in logged if each["event"].startswith("replica.")] == [
        "replica.left",
        "replica.used",
    ]
    (left,) = [each for each in logged if each["event"] == "replica.left"]
    assert re.fullmatch(r"it is [0-9.]+ s behind", left["reason"])
    assert await house.counted("conclave_history_lost") == 0


@pytest.mark.parametrize("fault", ["pause", "kill"])
async def test_a_replica_that_goes_away_is_done_without(house: House, fault: str) -> None:
    """Its absence costs a few seconds of lateness and nothing else; when it is back it is used again."""
    ann, bob = await house.conversation()
    getattr(house.pair.replica, fault)()
    try:
        for n in range(10):
            await ann.post("ops", str(n))
        told = ["before", *map(str, range(10))]
        assert await bob.history("ops") == told
        await wait_until(lambda: bob.bodies == told, timeout=20, what="bob hears all through the primary")
        await wait_until(house.is_ready, what="the node is ready")
        carl = await house.peers.register(house.near, "carl")
        await carl.join("ops")
        await carl.post("ops", "new here")
        await wait_until(lambda: bob.bodies[-1] == "new here", what="all goes on")
    finally:
        if fault == "pause":
            house.pair.replica.resume()
    if fault == "kill":
        await house.pair.replica.start()
    await house.moved_to(house.pair.replica)
    await ann.post("ops", "after")
    await wait_until(lambda: bob.bodies == [*told, "new here", "after"], what="bob hears the replica again")
    assert await house.counted("conclave_history_lost") == 0


@pytest.mark.long
async def test_a_replica_that_was_copied_anew_in_silence_has_told_nobody(house: House) -> None:
    """Then nothing was published there, no connection was lost, and no later message tells of the gap."""
    ann, bob = await house.conversation()
    await house.pair.in_step()
    with capture_logs() as logged, Redis.from_url(house.pair.primary.url) as client:
        copies = house.pair.full_copies()
        house.pair.link.cut()
        await ann.post("ops", "unheard")
        for n in range(64):
            client.set(f"ballast{n}", "x" * 4096)
        house.pair.link.mend()
        await house.pair.in_step()
        assert house.pair.full_copies() > copies, "it is too small a test"
        await wait_until(lambda: bob.bodies == ["before", "unheard"], timeout=25, what="bob hears it")
    assert [each for each in logged if each["event"] in ("channel.silent", "replica.left")]
    assert await house.counted("conclave_history_lost") == 0


async def test_another_server_is_not_taken_for_a_replica(redis_url: str, redis_process: RedisProcess) -> None:
    """A wrong URL is said in a line, and costs nobody a message."""
    with capture_logs() as logged:
        async with running_node(redis_process.url, read_url=redis_url) as url:
            peers = Peers()
            ann, bob = await peers.register(url, "ann"), await peers.register(url, "bob")
            await ann.create("ops")
            await ann.join("ops")
            await bob.join("ops")
            for n in range(20):
                await ann.post("ops", str(n))
            assert len(await bob.history("ops")) == 20
            await wait_until(lambda: len(bob.bodies) == 20, timeout=15, what="bob hears all")
            await peers.close()
    assert [each["reason"] for each in logged if each["event"] == "replica.left"] == [
        "it does not show this node's heartbeat: is it a replica of this cluster's Redis?"
    ]


async def test_a_node_starts_without_its_replica(redis_process: RedisProcess, tmp_path: Path) -> None:
    """A region that is being built, or rebuilt, serves from the first moment on."""
    absent = RedisProcess(tmp_path / "absent", tcp=True)
    async with running_node(redis_process.url, read_url=absent.url) as url:
        peers = Peers()
        ann, bob = await peers.register(url, "ann"), await peers.register(url, "bob")
        await ann.create("ops")
        await bob.join("ops")
        await ann.join("ops")
        await ann.post("ops", "hello")
        await wait_until(lambda: bob.bodies == ["hello"], what="bob hears it")
        await peers.close()
    absent.close()


@pytest.mark.long
async def test_all_that_was_said_is_heard_once_and_in_order_through_every_fault(house: House) -> None:
    """While people talk on both nodes, the replica lags, hangs, dies and is copied anew; so does what reads it."""
    pair = house.pair
    talkers = [
        Talker(await house.peers.register(url, f"talker{i}"), "plaza", f"talker{i}")
        for i, url in enumerate((house.far, house.near))
    ]
    listeners = [await house.peers.register(url, f"ear{i}") for i, url in enumerate((house.far, house.near))]
    await listeners[0].create("plaza")
    for peer in (*listeners, *(talker.peer for talker in talkers)):
        await peer.join("plaza")
    async with talking(talkers):
        for fault in ("stall", "pause", "cut", "kill"):
            await more_is_said(talkers)
            await _break(pair, fault)
            await more_is_said(talkers)
            await pause(3)
            await _mend(pair, fault)
    await house.pair.in_step()
    await everybody_heard(talkers, listeners, listeners[1], "plaza")
    assert not any(talker.refusals for talker in talkers), "writing does not depend on the replica"
    assert await house.counted("conclave_history_lost") == 0


async def _break(pair: Pair, fault: str) -> None:
    match fault:
        case "stall":
            pair.link.stall()
        case "pause":
            pair.replica.pause()
        case "cut":
            pair.link.cut()
        case _:
            pair.replica.kill()


async def _mend(pair: Pair, fault: str) -> None:
    match fault:
        case "stall":
            pair.link.flow()
        case "pause":
            pair.replica.resume()
        case "cut":
            pair.link.mend()
        case _:
            await pair.replica.start()
