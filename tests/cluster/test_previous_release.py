"""Nodes of the previous release and of this one in one cluster, as during a rolling update and one that is undone."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
from nacl.signing import SigningKey

from conclave import base64url
from tests.support.nodes import NodeProcess
from tests.support.previous_release import PreviousRelease, previous_release
from tests.support.reconnecting_clients import Reader, Sender
from tests.support.redis_server import RedisProcess
from tests.support.v2_peer import Json, V2Peer, V2Peers
from tests.support.waiting import wait_until

SUPERSEDED = 4001
CLIENT_SCALE = 0.05
"""The waits of the clients before they connect again, of those that our own client makes."""


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> PreviousRelease:
    return previous_release(tmp_path_factory.mktemp("release"))


def old_node(release: PreviousRelease, redis_url: str) -> NodeProcess:
    return NodeProcess("--redis-url", redis_url, program=release.program, environment=release.environment)


def new_node(redis_url: str) -> NodeProcess:
    return NodeProcess("--redis-url", redis_url)


@asynccontextmanager
async def running(nodes: Sequence[NodeProcess]) -> AsyncIterator[None]:
    """Run nodes, and end those that are in the list by then."""
    try:
        await asyncio.gather(*(node.start() for node in nodes))
        yield
    finally:
        await asyncio.gather(*(node.close() for node in nodes))


async def test_sessions_on_nodes_of_both_releases_are_in_one_cluster(
    release: PreviousRelease, redis_process: RedisProcess
) -> None:
    """Whatever one of them writes, the other one reads: messages, listings, leases, signals, announcements."""
    old, new = old_node(release, redis_process.url), new_node(redis_process.url)
    async with running((old, new)), V2Peers() as peers:
        keys = {user: SigningKey.generate() for user in ("ann", "bob")}
        ann = await peers.login(old.url, keys["ann"], register=("ann", "laptop"))
        bob = await peers.login(new.url, keys["bob"], register=("bob", "laptop"))
        await _talk(ann, bob)
        await _whisper(ann, bob)
        for url, other in ((new.url, old.url), (old.url, new.url)):  # both change their nodes, and change back
            former = ann, bob
            ann, bob = await peers.login(url, keys["ann"]), await peers.login(other, keys["bob"])
            assert [(await each.wait_closed())[0] for each in former] == [SUPERSEDED] * 2
            await _come_back(ann, bob)
            await _kick(ann, bob)
        await _revoke(peers, ann, bob, (old.url, new.url))


async def _talk(ann: V2Peer, bob: V2Peer) -> None:
    """Post both ways, some of it with keys."""
    await ann.create("ops")
    await ann.join("ops")
    await bob.join("ops")
    for number in range(10):
        for peer, other in ((ann, "bob"), (bob, "ann")):
            first = await peer.post("ops", f"{other} {number}", key=f"k{number}")
            assert await peer.post("ops", "again", key=f"k{number}") == first
    await wait_until(lambda: len(ann.texts("ops")) == len(bob.texts("ops")) == 10, what="each gets the other's posts")
    assert await ann.history("ops") == await bob.history("ops")
    assert (await ann.ask("who", channel="ops")) == (await bob.ask("who", channel="ops"))
    assert (await ann.ask("who")) == (await bob.ask("who")) == {"sessions": [ann.path, bob.path]}


async def _whisper(ann: V2Peer, bob: V2Peer) -> None:
    """Whisper both ways, with and without a key."""
    for peer, other in ((ann, bob), (bob, ann)):
        await peer.ask("whisper", to=other.path, body={"text": "psst"})
        first = await peer.ask("whisper", to=other.path, body={"text": "psst"}, key="w")
        assert await peer.ask("whisper", to=other.path, body={"text": "psst"}, key="w") == first
    await wait_until(lambda: len(ann.of("whisper")) == len(bob.of("whisper")) == 2, what="each gets two whispers")


async def _come_back(ann: V2Peer, bob: V2Peer) -> None:
    """Both join again from the beginning, and miss nothing."""
    for peer in (ann, bob):
        assert (await peer.join("ops", since="0-0"))["recovered"] is True
    await ann.post("ops", "back")
    rows = [row["id"] for row in await bob.history("ops") if row["from"] != bob.path]
    await wait_until(lambda: bob.ids("ops") == rows, what="bob has received everything, once and in order")


async def _kick(ann: V2Peer, bob: V2Peer) -> None:
    """Ann kicks bob from one node, and bob joins again from the other."""
    await ann.ask("kick", channel="ops", target="bob")
    await wait_until(lambda: bob.of("left"), what="bob is told")
    received = bob.texts("ops")
    await ann.post("ops", "without bob")
    assert (await bob.refusal("send", channel="ops", body={"text": "late"})).startswith("unauthorized")
    assert bob.texts("ops") == received
    await bob.join("ops")


async def _revoke(peers: V2Peers, ann: V2Peer, bob: V2Peer, urls: tuple[str, str]) -> None:
    """Each revokes a machine of their own that is logged in at both nodes."""
    for peer in (ann, bob):
        key = SigningKey.generate()
        await peer.ask("machine.add", machine="other", pubkey=base64url.encode(bytes(key.verify_key)))
        others = [await peers.login(url, key, f"s{number}") for number, url in enumerate(urls)]
        await peer.ask("machine.remove", machine="other")
        for other in others:
            assert (await other.wait_closed())[0] == 4002


async def test_an_update_and_its_return_lose_no_message(release: PreviousRelease, redis_process: RedisProcess) -> None:
    """A node is replaced by one of this release, and another one goes back, while sessions talk and come back."""
    url = redis_process.url
    nodes = [old_node(release, url), new_node(url)]
    async with running(nodes), V2Peers() as peers:
        creator = await peers.register(nodes[0].url, "creator")
        await creator.create("ops")
        urls = [node.url for node in nodes]
        readers = [Reader(urls[n % 2 :] + urls[: n % 2], f"reader{n}", CLIENT_SCALE) for n in range(4)]
        senders = [Sender(urls[n % 2 :] + urls[: n % 2], f"sender{n}", CLIENT_SCALE) for n in range(4)]
        await asyncio.gather(*(each.register() for each in (*readers, *senders)))
        calm = False
        async with asyncio.TaskGroup() as reading:
            tasks = [reading.create_task(reader.run("ops")) for reader in readers]
            async with asyncio.TaskGroup() as sending:
                for sender in senders:
                    sending.create_task(sender.run("ops", 0.02, until=lambda: calm))
                await _all_go_on(readers, senders)
                for number, successor in enumerate((new_node(url), old_node(release, url))):
                    await _replace(nodes, number, successor)
                    await _all_go_on(readers, senders)
                calm = True
            log = await _log(nodes[0].url)
            await wait_until(lambda: all(len(each.received) >= len(log) for each in readers), what="all have read all")
            for task in tasks:
                task.cancel()
        await asyncio.gather(*(each.close() for each in (*readers, *senders)))
    texts = Counter(row["body"]["text"] for row in log)
    acknowledged = {text for sender in senders for _, text in sender.acknowledged}
    assert acknowledged <= set(texts), "an acknowledged message is not in the log"
    assert max(texts.values()) == 1, "a message that was repeated with its key is in the log twice"
    for reader in readers:
        assert reader.received == [row["id"] for row in log]
        assert reader.gaps == 0
    assert all(sender.lost_at for sender in senders), "every sender has changed its node"


async def _replace(nodes: list[NodeProcess], number: int, successor: NodeProcess) -> None:
    """Stop a node, and start its successor at the same address."""
    former = nodes[number]
    assert await former.stop() == 0
    successor.address = former.address
    nodes[number] = successor
    await successor.start()


async def _all_go_on(readers: list[Reader], senders: list[Sender]) -> None:
    """Wait until each has sent or received three more messages."""

    def counts() -> list[int]:
        return [*(len(reader.received) for reader in readers), *(len(sender.acknowledged) for sender in senders)]

    goals = [count + 3 for count in counts()]
    await wait_until(
        lambda: all(count >= goal for count, goal in zip(counts(), goals, strict=True)), what="all send and receive"
    )


async def _log(url: str) -> list[Json]:
    auditor = await V2Peer.register(url, "auditor")
    try:
        await auditor.join("ops")
        return await auditor.history("ops")
    finally:
        await auditor.close()
