"""A node with a read replica: as exact as one without, whatever the replica does."""

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
from tests.support.moderation import administer
from tests.support.nodes import running_node
from tests.support.peer import Peer, Peers
from tests.support.redis_server import RedisProcess
from tests.support.replica import Pair, replicated
from tests.support.traffic import Poster, assert_all_delivered, more_is_acknowledged, posting
from tests.support.v2_peer import V2Peers
from tests.support.waiting import pause, wait_until


class TwoRegions:
    """A node at the primary and one at the replica, and their sessions."""

    def __init__(self, pair: Pair, primary_node: str, replica_node: str) -> None:
        self.pair = pair
        self.primary_node = primary_node
        """The node without a replica."""
        self.replica_node = replica_node
        self.peers = Peers()
        self.v2_peers = V2Peers()

    async def two_sessions(self) -> tuple[Peer, Peer]:
        """Ann at the primary's node and bob at the replica's, in a channel with live delivery."""
        ann, bob = (
            await self.peers.register(self.primary_node, "ann"),
            await self.peers.register(self.replica_node, "bob"),
        )
        await ann.create("ops")
        await ann.join("ops")
        await bob.join("ops")
        await ann.post("ops", "before")
        await wait_until(lambda: bob.bodies, what="live delivery works")
        return ann, bob

    def receives_from(self, server: RedisProcess) -> bool:
        """Tell if the replica's node gets live messages from a server; the other one is subscribed at the primary."""
        with Redis.from_url(server.url) as client:
            (topic,) = self.pair.topics(self.pair.primary)
            ((_, count),) = client.pubsub_numsub(topic)
        return int(count) == (2 if server is self.pair.primary else 1)

    async def moved_to(self, server: RedisProcess) -> None:
        await wait_until(lambda: self.receives_from(server), timeout=40, what="the node is subscribed there")

    async def get(self, path: str) -> tuple[int, str]:
        url = self.replica_node.replace("ws://", "http://").rstrip("/") + path
        async with aiohttp.ClientSession() as http, http.get(url) as response:
            return response.status, await response.text()

    async def counted(self, metric: str) -> float:
        found = re.search(rf"^{metric}_total (\S+)$", (await self.get("/metrics"))[1], re.MULTILINE)
        assert found is not None
        return float(found[1])

    async def is_ready(self) -> bool:
        return (await self.get("/ready"))[0] == 200


@asynccontextmanager
async def regions_of(pair: Pair) -> AsyncIterator[TwoRegions]:
    async with (
        running_node(pair.primary.url) as primary_node,
        running_node(pair.primary.url, read_url=pair.replica.url, redis_timeout=1.0) as replica_node,
    ):
        regions = TwoRegions(pair, primary_node, replica_node)
        try:
            yield regions
        finally:
            pair.link.flow()
            await regions.peers.close()
            await regions.v2_peers.close()


@pytest.fixture
async def regions(tmp_path: Path) -> AsyncIterator[TwoRegions]:
    async with replicated(tmp_path) as pair, regions_of(pair) as regions:
        yield regions


async def test_live_messages_and_pages_come_from_the_replica(regions: TwoRegions) -> None:
    """A message crosses an ocean once, not once per node and reader."""
    ann, bob = await regions.two_sessions()
    eve = await regions.v2_peers.register(regions.replica_node, "eve")
    first = (await eve.join("ops"))["position"]
    assert regions.receives_from(regions.pair.replica)
    assert not regions.receives_from(regions.pair.primary)
    for n in range(600):
        await ann.post("ops", str(n))
    await bob.post("ops", "mine")
    await wait_until(lambda: len(bob.bodies) == 601 and len(eve.texts("ops")) == 601, what="both get all")
    await regions.pair.in_step()
    posted = ["before", *map(str, range(600)), "mine"]
    assert eve.texts("ops") == posted[1:]
    before = regions.pair.calls(regions.pair.replica)
    assert await bob.history("ops") == posted
    assert [row["body"]["text"] for row in await eve.history("ops")] == posted
    newest = await eve.ask("history", channel="ops", limit=3)
    assert [row["body"]["text"] for row in newest["messages"]] == posted[-3:]
    middle = await eve.ask("history", channel="ops", before=newest["messages"][0]["id"], limit=2)
    assert [row["body"]["text"] for row in middle["messages"]] == posted[-5:-3]
    assert regions.pair.calls(regions.pair.replica) - before >= 5
    again = await regions.v2_peers.register(regions.replica_node, "again")
    assert (await again.join("ops", since=first))["recovered"]
    await wait_until(lambda: len(again.texts("ops")) == 601, what="missed messages come")
    assert again.texts("ops") == posted[1:]


async def test_nothing_is_missing_or_reported_lost_while_the_replica_lags(regions: TwoRegions) -> None:
    """Its log ends earlier than the primary's; a request at that moment must not show it."""
    ann, bob = await regions.two_sessions()
    eve = await regions.v2_peers.register(regions.replica_node, "eve")
    since = (await eve.join("ops"))["position"]
    await regions.pair.in_step()
    regions.pair.link.stall()
    for n in range(40):
        await ann.post("ops", str(n))
    posted = ["before", *map(str, range(40))]
    assert await bob.history("ops") == posted
    assert [row["body"]["text"] for row in await eve.history("ops")] == posted
    newest = await eve.ask("history", channel="ops", limit=1)
    assert newest["messages"][0]["body"]["text"] == "39"
    after = await eve.ask("history", channel="ops", after_ts=0, limit=500)
    assert len(after["messages"]) == 41
    assert not after.get("lost")
    dan = await regions.v2_peers.register(regions.replica_node, "dan")
    assert (await dan.join("ops", since=since))["recovered"]
    await wait_until(lambda: dan.texts("ops") == posted[1:], what="missed messages come from the primary")
    with Redis.from_url(regions.pair.replica.url) as client:
        client.client_kill_filter(_type="pubsub")
    await wait_until(lambda: bob.bodies == posted, what="the gap is filled from the primary")
    regions.pair.link.flow()
    await ann.post("ops", "after")
    for peer in (eve, dan):
        await wait_until(lambda peer=peer: peer.texts("ops") == [*posted[1:], "after"], what="all goes on")  # type: ignore[misc]
        assert peer.of("gap") == []
    await wait_until(lambda: bob.bodies[-1] == "after", what="bob gets it")
    assert bob.bodies == [*posted, "after"]
    assert await regions.counted("conclave_history_lost") == 0


async def test_a_removed_user_cannot_read_while_the_replica_lags(regions: TwoRegions) -> None:
    """Membership is asked of the primary; the replica would still grant access."""
    ann, bob = await regions.two_sessions()
    eve = await regions.v2_peers.register(regions.replica_node, "eve")
    await eve.join("ops")
    await regions.pair.in_step()
    regions.pair.link.stall()
    await administer(ann, admin.SetVisibility("ops", Visibility.PRIVATE))
    assert "not a member" in await bob.refusal(frames.ReadSince("ops", 0))
    assert "not a member" in await eve.refusal("history", channel="ops")
    await ann.post("ops", "among us")
    regions.pair.link.flow()
    await regions.pair.in_step()
    await wait_until(lambda: eve.of("left"), what="eve is told")
    await ann.post("ops", "still")
    assert "among us" not in bob.bodies
    assert eve.texts("ops") == []


async def test_a_page_by_milliseconds_from_a_replica_is_complete(regions: TwoRegions) -> None:
    """The next page by milliseconds begins after the last one, which therefore has to be complete."""
    ann, bob = await regions.two_sessions()
    posters = [Poster(await regions.peers.register(regions.primary_node, f"t{i}"), "ops", f"t{i}") for i in range(4)]
    for poster in posters:
        await poster.peer.join("ops")
    read: list[str] = []
    since = 0
    async with posting(posters):
        await more_is_acknowledged(posters, 10)
        for _ in range(200):
            page = await bob.page("ops", since)
            read += [row.payload.text for row in page if not isinstance(row.payload, frames.RawPayload)]  # type: ignore[union-attr]
            since = page[-1].ts_ms if page else since
    while page := await bob.page("ops", since):
        read += [row.payload.text for row in page if not isinstance(row.payload, frames.RawPayload)]  # type: ignore[union-attr]
        since = page[-1].ts_ms
    assert read == await ann.history("ops")


@pytest.mark.long
async def test_a_lagging_replica_is_left_and_used_again(regions: TwoRegions) -> None:
    """Live messages do not wait for it longer than a few seconds, and the node is ready all the time."""
    ann, bob = await regions.two_sessions()
    with capture_logs() as logged:
        regions.pair.link.stall()
        await ann.post("ops", "during")
        await regions.moved_to(regions.pair.primary)
        await wait_until(lambda: bob.bodies == ["before", "during"], what="bob gets what the replica held back")
        await ann.post("ops", "live")
        await wait_until(lambda: bob.bodies[-1] == "live", what="bob gets messages of the primary")
        assert await regions.is_ready()
        regions.pair.link.flow()
        await regions.moved_to(regions.pair.replica)
    await ann.post("ops", "after")
    await wait_until(
        lambda: bob.bodies == ["before", "during", "live", "after"], what="bob gets the replica's messages again"
    )
    assert [each["event"] for each in logged if each["event"].startswith("replica.")] == [
        "replica.left",
        "replica.used",
    ]
    (left,) = [each for each in logged if each["event"] == "replica.left"]
    assert re.fullmatch(r"it is [0-9.]+ s behind", left["reason"])
    assert await regions.counted("conclave_history_lost") == 0


@pytest.mark.parametrize("fault", ["pause", "kill"])
async def test_a_node_goes_on_without_its_replica(regions: TwoRegions, fault: str) -> None:
    """Its absence costs a few seconds of lateness and nothing else; when it is back it is used again."""
    ann, bob = await regions.two_sessions()
    getattr(regions.pair.replica, fault)()
    try:
        for n in range(10):
            await ann.post("ops", str(n))
        posted = ["before", *map(str, range(10))]
        assert await bob.history("ops") == posted
        await wait_until(lambda: bob.bodies == posted, timeout=20, what="bob gets all from the primary")
        await wait_until(regions.is_ready, what="the node is ready")
        carl = await regions.peers.register(regions.replica_node, "carl")
        await carl.join("ops")
        await carl.post("ops", "new here")
        await wait_until(lambda: bob.bodies[-1] == "new here", what="all goes on")
    finally:
        if fault == "pause":
            regions.pair.replica.resume()
    if fault == "kill":
        await regions.pair.replica.start()
    await regions.moved_to(regions.pair.replica)
    await ann.post("ops", "after")
    await wait_until(lambda: bob.bodies == [*posted, "new here", "after"], what="bob gets the replica's messages again")
    assert await regions.counted("conclave_history_lost") == 0


@pytest.mark.long
async def test_a_full_resynchronisation_of_the_replica_loses_no_message(regions: TwoRegions) -> None:
    """During it nothing is published there, no connection is lost, and no later message shows the gap."""
    ann, bob = await regions.two_sessions()
    await regions.pair.in_step()
    with capture_logs() as logged, Redis.from_url(regions.pair.primary.url) as client:
        copies = regions.pair.full_copies()
        regions.pair.link.cut()
        await ann.post("ops", "missed")
        for n in range(64):
            client.set(f"ballast{n}", "x" * 4096)
        regions.pair.link.mend()
        await regions.pair.in_step()
        assert regions.pair.full_copies() > copies, "it is too small a test"
        await wait_until(lambda: bob.bodies == ["before", "missed"], timeout=25, what="bob gets it")
    assert [each for each in logged if each["event"] in ("channel.silent", "replica.left")]
    assert await regions.counted("conclave_history_lost") == 0


async def test_another_server_is_not_used_as_a_replica(redis_url: str, redis_process: RedisProcess) -> None:
    """A wrong URL is logged in a line, and costs no message."""
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
            await wait_until(lambda: len(bob.bodies) == 20, timeout=15, what="bob gets all")
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
        await wait_until(lambda: bob.bodies == ["hello"], what="bob gets it")
        await peers.close()
    absent.close()


@pytest.mark.long
async def test_all_messages_arrive_once_and_in_order_through_every_fault(regions: TwoRegions) -> None:
    """While sessions on both nodes post, the replica lags, hangs, dies, and is copied anew; its connections break."""
    pair = regions.pair
    urls = regions.primary_node, regions.replica_node
    posters = [
        Poster(await regions.peers.register(url, f"poster{i}"), "ops", f"poster{i}") for i, url in enumerate(urls)
    ]
    readers = [await regions.peers.register(url, f"reader{i}") for i, url in enumerate(urls)]
    await readers[0].create("ops")
    for peer in (*readers, *(poster.peer for poster in posters)):
        await peer.join("ops")
    async with posting(posters):
        for fault in ("stall", "pause", "cut", "kill"):
            await more_is_acknowledged(posters)
            await _break(pair, fault)
            await more_is_acknowledged(posters)
            await pause(3)
            await _mend(pair, fault)
    await regions.pair.in_step()
    await assert_all_delivered(posters, readers, readers[1], "ops")
    assert not any(poster.refusals for poster in posters), "writing does not depend on the replica"
    assert await regions.counted("conclave_history_lost") == 0


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
