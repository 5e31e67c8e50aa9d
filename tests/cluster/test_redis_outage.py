"""Redis goes away and comes back: sessions stay, requests are refused, and nothing acknowledged is lost."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from nacl.signing import SigningKey

from tests.support.nodes import NodeProcess, cluster
from tests.support.peer import Peer, Peers, Refused
from tests.support.proxy import Proxy
from tests.support.redis_server import RedisProcess
from tests.support.traffic import Poster, Traffic, assert_all_delivered, more_is_acknowledged, posting
from tests.support.waiting import pause, wait_until

AWAY = "internal error: the relay cannot reach its store; try again in a few seconds"
LATE = 5.0
"""The seconds after which a refusal counts as a hang; a busy machine takes some by itself."""
SUPERSEDED = "unauthorized: session superseded by a newer connection for the same session path"


@asynccontextmanager
async def traffic_on(nodes: list[NodeProcess], peers: Peers) -> AsyncIterator[Traffic]:
    """Sessions that post inside the `async with`."""
    traffic = await Traffic.on(nodes, peers)
    async with posting(traffic.posters):
        await more_is_acknowledged(traffic.posters)
        yield traffic


async def ready(nodes: list[NodeProcess], status: int) -> bool:
    return [await node.status("/ready") for node in nodes] == [status] * len(nodes)


async def test_sessions_outlive_a_restart_of_redis(
    nodes: list[NodeProcess], peers: Peers, redis_process: RedisProcess
) -> None:
    """A failover or an upgrade of Redis takes seconds. No session has to reconnect, and none loses a message."""
    async with traffic_on(nodes, peers) as traffic:
        for poster in traffic.posters:
            poster.slowest = 0
        redis_process.kill()
        await wait_until(lambda: ready(nodes, 503), timeout=30, what="no node says that it is ready")
        assert [await node.status("/health") for node in nodes] == [200] * 3, "a restart of the nodes would not help"
        await wait_until(lambda: all(len(poster.refusals) > 5 for poster in traffic.posters), what="posts are refused")
        await pause(3)
        assert {text for poster in traffic.posters for text in poster.refusals} == {AWAY}
        assert max(poster.slowest for poster in traffic.posters) < LATE, "a refusal that comes late is a hang"
        await redis_process.restart()
        async with asyncio.timeout(30):
            await wait_until(lambda: ready(nodes, 200), what="every node is ready again")
            await more_is_acknowledged(traffic.posters, 1)
        await more_is_acknowledged(traffic.posters)
    await traffic.assert_undisturbed()


async def test_redis_dies_again_and_again(nodes: list[NodeProcess], peers: Peers, redis_process: RedisProcess) -> None:
    """The moment of recovery is the one at which the next outage hurts most."""
    async with traffic_on(nodes, peers) as traffic:
        for _ in range(6):
            await redis_process.restart()
            await pause(0.15)  # the nodes are in the middle of taking up where they were
        await wait_until(lambda: ready(nodes, 200), what="every node is ready again")
        await more_is_acknowledged(traffic.posters)
    await wait_until(lambda: _present(traffic), what="every session is present again")
    await traffic.assert_undisturbed()


async def _present(traffic: Traffic) -> bool:
    return all([await reader.who() == traffic.paths for reader in traffic.readers])


async def test_sessions_outlive_a_stalled_redis(
    nodes: list[NodeProcess], peers: Peers, redis_process: RedisProcess
) -> None:
    """A stalled server keeps its connections open, and carries out later what no caller waits for any more."""
    async with traffic_on(nodes, peers) as traffic:
        redis_process.pause()
        await wait_until(lambda: ready(nodes, 503), timeout=30, what="no node says that it is ready")
        assert [await node.status("/health") for node in nodes] == [200] * 3
        await wait_until(lambda: all(poster.refusals for poster in traffic.posters), what="posts are refused")
        for poster in traffic.posters:
            poster.slowest = 0
        await pause(2)
        assert max(poster.slowest for poster in traffic.posters) < LATE, (
            "once the stall is known, refusals come at once"
        )
        assert {text for poster in traffic.posters for text in poster.refusals} == {AWAY}
        redis_process.resume()
        async with asyncio.timeout(30):
            await wait_until(lambda: ready(nodes, 200), what="every node is ready again")
        await more_is_acknowledged(traffic.posters)
    await wait_until(lambda: _present(traffic), what="every session is present again")
    await traffic.assert_undisturbed()


async def test_presence_outlives_a_long_outage(
    nodes: list[NodeProcess], peers: Peers, redis_process: RedisProcess
) -> None:
    """While Redis is away no node can send a heartbeat: the first one that is back must not evict the others."""
    traffic = await Traffic.on(nodes, peers)
    nodes[2].pause()  # the slowest to be back; from here on its heartbeat stands still
    await pause(2.5)  # the others have looked at it once more
    redis_process.kill()
    await pause(7)  # longer than any heartbeat may be late
    leaver = traffic.readers.pop(0)
    await leaver.close()
    await wait_until(lambda: _has_logged(nodes[0], "session.closed"), what="its node has noticed")
    await redis_process.restart()
    await wait_until(lambda: ready(nodes[:2], 200), what="two nodes are ready again")
    await pause(3)  # each of them has judged the third by now
    nodes[2].resume()
    await wait_until(lambda: ready(nodes, 200), what="every node is ready again")
    await wait_until(lambda: _present(traffic), timeout=30, what="all are present but the one that left meanwhile")
    assert not [line for node in nodes for line in node.log if "node.buried" in line or "node.evicted" in line]
    await traffic.assert_undisturbed()


def _has_logged(node: NodeProcess, event: str) -> bool:
    return any(event in line for line in node.log)


async def test_no_message_is_lost_with_a_subscriber_connection(
    nodes: list[NodeProcess], peers: Peers, redis_process: RedisProcess
) -> None:
    """Redis forgets a message once it has published it; a node that was not connected reads it from the log."""
    cut = 0
    async with traffic_on(nodes, peers) as traffic:
        for _ in range(6):
            cut += redis_process.cut_subscribers()
            await more_is_acknowledged(traffic.posters, 10)
            await wait_until(lambda: ready(nodes, 200), what="every node is subscribed again")
    assert cut == 6 * len(nodes)
    assert sum([await _refilled(node) for node in nodes]) > 0, "nothing was published while a node was not subscribed"
    await wait_until(lambda: ready(nodes, 200), what="every node is ready again")
    await traffic.assert_undisturbed()


async def test_the_last_message_before_a_silence_is_not_lost(
    nodes: list[NodeProcess], peers: Peers, redis_process: RedisProcess
) -> None:
    """No later message shows that one is missing: the node reads the log as soon as it is subscribed again."""
    poster = await peers.register(nodes[0].url, "poster")
    readers = [await peers.register(node.url, f"reader{i}") for i, node in enumerate(nodes)]
    await poster.create("ops")
    for peer in (poster, *readers):
        await peer.join("ops")
    for turn in range(8):
        assert redis_process.cut_subscribers() == len(nodes)
        await poster.post("ops", f"{turn}")
        for reader in readers:
            await wait_until(
                lambda received=reader.messages, turn=turn: len(received) > turn,  # type: ignore[misc]
                timeout=30,
                what="the message was found in the log",
            )
        await wait_until(lambda: ready(nodes, 200), what="every node is subscribed again")
    assert all(reader.bodies == [str(turn) for turn in range(8)] for reader in readers)
    assert all([await _refilled(node) > 0 for node in nodes])


async def _refilled(node: NodeProcess) -> float:
    """Return the number of messages that a node read from a log after a gap."""
    metrics = await node.text("/metrics")
    line = next(line for line in metrics.splitlines() if line.startswith("conclave_messages_refilled_total"))
    return float(line.rpartition(" ")[2])


@asynccontextmanager
async def one_behind_a_proxy(server: RedisProcess) -> AsyncIterator[tuple[NodeProcess, NodeProcess, Proxy, Peers]]:
    """Two nodes; the first reaches Redis only through the proxy."""
    peers = Peers()
    async with (
        Proxy(*server.address) as proxy,
        cluster(f"redis://127.0.0.1:{proxy.port}", 1) as behind,
        cluster(server.url, 1) as direct,
    ):
        try:
            yield behind[0], direct[0], proxy, peers
        finally:
            await peers.close()


async def poster_and_reader(direct: NodeProcess, behind: NodeProcess, peers: Peers) -> tuple[Poster, Peer]:
    """Join one session of each node to `ops`."""
    poster = Poster(await peers.register(direct.url, "poster"), "ops", "poster")
    reader = await peers.register(behind.url, "reader")
    await poster.peer.create("ops")
    await poster.peer.join("ops")
    await reader.join("ops")
    return poster, reader


async def test_signal_to_a_node_that_is_cut_off_is_not_lost(redis_process_tcp: RedisProcess) -> None:
    """A session that moves to another node while the network is cut must not exist twice when it is restored."""
    async with one_behind_a_proxy(redis_process_tcp) as (behind, direct, proxy, peers):
        key = SigningKey.generate()
        old = peers.keep(await Peer.login(behind.url, key, "main", register=("ann", "laptop")))
        bystander = await peers.register(behind.url, "bystander")
        proxy.cut()
        await wait_until(lambda: ready([behind], 503), what="the node knows that it is cut off")
        new = peers.keep(await Peer.login(direct.url, key, "main"))
        with pytest.raises(Refused, match="has not confirmed the whisper"):
            await new.whisper(bystander.path, "hi")
        assert not old.is_closed
        proxy.mend()
        assert await old.wait_closed() == SUPERSEDED
        await wait_until(lambda: bystander.whispers, what="the whisper arrives as well")
        await wait_until(lambda: ready([behind], 200), what="the node is ready again")
        present = sorted([str(new.path), str(bystander.path)])
        assert await new.who() == await bystander.who() == present


async def test_a_node_that_was_cut_off_for_long_joins_the_cluster_again(redis_process_tcp: RedisProcess) -> None:
    """It was evicted meanwhile, under its old name: a later login met nobody, and sent no signal."""
    async with one_behind_a_proxy(redis_process_tcp) as (behind, direct, proxy, peers):
        key = SigningKey.generate()
        old = peers.keep(await Peer.login(behind.url, key, "main", register=("ann", "laptop")))
        poster, reader = await poster_and_reader(direct, behind, peers)
        proxy.cut()
        new = peers.keep(await Peer.login(direct.url, key, "main"))
        async with posting([poster]):
            await wait_until(
                lambda: any("node.buried" in line for line in direct.log), what="the node that is cut off was evicted"
            )
        assert await new.who() == sorted([str(new.path), str(poster.peer.path)])
        proxy.mend()
        assert await old.wait_closed() == SUPERSEDED
        present = sorted([str(new.path), str(poster.peer.path), str(reader.path)])
        await wait_until(lambda: _all_see(present, new, reader), what="the reader is present again")
        await assert_all_delivered([poster], [reader], poster.peer, "ops")


async def _all_see(present: list[str], *observers: Peer) -> bool:
    return all([await observer.who() == present for observer in observers])


async def test_connections_that_went_silent_are_noticed(redis_process_tcp: RedisProcess) -> None:
    """A firewall that forgets a connection ends nothing: the node must find out that it receives nothing."""
    async with one_behind_a_proxy(redis_process_tcp) as (behind, direct, proxy, peers):
        key = SigningKey.generate()
        old = peers.keep(await Peer.login(behind.url, key, "main", register=("ann", "laptop")))
        poster, reader = await poster_and_reader(direct, behind, peers)
        async with posting([poster]):
            await more_is_acknowledged([poster])
            proxy.swallow()
            new = peers.keep(await Peer.login(direct.url, key, "main"))
            posted = len(poster.acknowledged)
            await wait_until(lambda: len(reader.messages) > posted, timeout=15, what="the reader gets messages again")
        assert await old.wait_closed() == SUPERSEDED
        await assert_all_delivered([poster], [reader], poster.peer, "ops")
        present = sorted([str(new.path), str(poster.peer.path), str(reader.path)])
        await wait_until(lambda: _all_see(present, new, reader), what="every session is present")
