"""Redis goes away and comes back: sessions stay, requests are told why, and nothing acknowledged is lost."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from nacl.signing import SigningKey

from tests.support.nodes import NodeProcess, cluster
from tests.support.peer import Peer, Peers
from tests.support.proxy import Proxy
from tests.support.redis_server import RedisProcess
from tests.support.traffic import Talker, everybody_heard, more_is_said, talking
from tests.support.waiting import pause, wait_until

AWAY = "internal error: the relay cannot reach its store; try again in a few seconds"
LATE = 5.0
"""Seconds until a refusal is no refusal any more, but a hang; a busy machine takes some by itself."""
SUPERSEDED = "unauthorized: session superseded by a newer connection for the same session path"


class Crowd:
    """On each node somebody who talks and somebody who listens; one more who reads history in the end."""

    def __init__(self) -> None:
        self.talkers: list[Talker] = []
        self.listeners: list[Peer] = []

    async def gather(self, nodes: list[NodeProcess], peers: Peers) -> None:
        for i, node in enumerate(nodes):
            self.listeners.append(await peers.register(node.url, f"listener{i}"))
            self.talkers.append(Talker(await peers.register(node.url, f"talker{i}"), "plaza", f"talker{i}"))
        await self.listeners[0].create("plaza")
        for peer in self.everybody:
            await peer.join("plaza")

    @property
    def everybody(self) -> list[Peer]:
        return [*self.listeners, *(talker.peer for talker in self.talkers)]

    async def all_well(self) -> None:
        """Assert that everybody is still connected and present, and has heard what they should."""
        assert not [str(peer.path) for peer in self.everybody if peer.is_closed], "somebody was disconnected"
        present = sorted(str(peer.path) for peer in self.everybody)
        for observer in self.listeners:
            assert await observer.who() == present
            assert await observer.who("plaza") == present
        await everybody_heard(self.talkers, self.listeners, self.listeners[0], "plaza")


@asynccontextmanager
async def crowd_on(nodes: list[NodeProcess], peers: Peers) -> AsyncIterator[Crowd]:
    """A crowd that talks inside the `async with`."""
    crowd = Crowd()
    await crowd.gather(nodes, peers)
    async with talking(crowd.talkers):
        await more_is_said(crowd.talkers)
        yield crowd


async def ready(nodes: list[NodeProcess], status: int) -> bool:
    return [await node.status("/ready") for node in nodes] == [status] * len(nodes)


async def test_sessions_outlive_a_restart_of_redis(
    nodes: list[NodeProcess], peers: Peers, redis_process: RedisProcess
) -> None:
    """A failover or an upgrade of Redis takes seconds. Nobody should have to reconnect or lose a word for it."""
    async with crowd_on(nodes, peers) as crowd:
        for talker in crowd.talkers:
            talker.slowest = 0
        redis_process.kill()
        await wait_until(lambda: ready(nodes, 503), timeout=30, what="no node says that it is ready")
        assert [await node.status("/health") for node in nodes] == [200] * 3, "a restart of the nodes would not help"
        await wait_until(lambda: all(len(talker.refusals) > 5 for talker in crowd.talkers), what="posts are refused")
        await pause(3)
        assert {text for talker in crowd.talkers for text in talker.refusals} == {AWAY}
        assert max(talker.slowest for talker in crowd.talkers) < LATE, "a refusal that comes late is a hang"
        await redis_process.restart()
        async with asyncio.timeout(30):
            await wait_until(lambda: ready(nodes, 200), what="every node is ready again")
            await more_is_said(crowd.talkers, 1)
        await more_is_said(crowd.talkers)
    await crowd.all_well()


async def test_redis_dies_again_and_again(nodes: list[NodeProcess], peers: Peers, redis_process: RedisProcess) -> None:
    """The moment of recovery is the one at which the next outage hurts most."""
    async with crowd_on(nodes, peers) as crowd:
        for _ in range(6):
            await redis_process.restart()
            await pause(0.15)  # the nodes are in the middle of taking up where they were
        await wait_until(lambda: ready(nodes, 200), what="every node is ready again")
        await more_is_said(crowd.talkers)
    await wait_until(lambda: _present(crowd), what="everybody is present again")
    await crowd.all_well()


async def _present(crowd: Crowd) -> bool:
    everybody = sorted(str(peer.path) for peer in crowd.everybody)
    return all([await observer.who() == everybody for observer in crowd.listeners])


async def test_sessions_outlive_a_stalled_redis(
    nodes: list[NodeProcess], peers: Peers, redis_process: RedisProcess
) -> None:
    """A stalled server keeps its connections open, and does later what nobody waits for any more."""
    async with crowd_on(nodes, peers) as crowd:
        redis_process.pause()
        await wait_until(lambda: ready(nodes, 503), timeout=30, what="no node says that it is ready")
        assert [await node.status("/health") for node in nodes] == [200] * 3
        await wait_until(lambda: all(talker.refusals for talker in crowd.talkers), what="posts are refused")
        for talker in crowd.talkers:
            talker.slowest = 0
        await pause(2)
        assert max(talker.slowest for talker in crowd.talkers) < LATE, "once the stall is known, refusals come at once"
        assert {text for talker in crowd.talkers for text in talker.refusals} == {AWAY}
        redis_process.resume()
        async with asyncio.timeout(30):
            await wait_until(lambda: ready(nodes, 200), what="every node is ready again")
        await more_is_said(crowd.talkers)
    await wait_until(lambda: _present(crowd), what="everybody is present again")
    await crowd.all_well()


async def test_presence_outlives_a_long_outage(
    nodes: list[NodeProcess], peers: Peers, redis_process: RedisProcess
) -> None:
    """While Redis is away no heart can beat: the first node that is back must not bury the others for it."""
    crowd = Crowd()
    await crowd.gather(nodes, peers)
    nodes[2].pause()  # the slowest to be back; from here on its heart stands still
    await pause(2.5)  # the others have looked at it once more
    redis_process.kill()
    await pause(7)  # longer than any heartbeat may be late
    leaver = crowd.listeners.pop(0)
    await leaver.close()
    await wait_until(lambda: _has_logged(nodes[0], "session.closed"), what="its node has noticed")
    await redis_process.restart()
    await wait_until(lambda: ready(nodes[:2], 200), what="two nodes are ready again")
    await pause(3)  # each of them has judged the third by now
    nodes[2].resume()
    await wait_until(lambda: ready(nodes, 200), what="every node is ready again")
    await wait_until(lambda: _present(crowd), timeout=30, what="all are present but the one who left meanwhile")
    assert not [line for node in nodes for line in node.log if "node.buried" in line or "node.evicted" in line]
    await crowd.all_well()


def _has_logged(node: NodeProcess, event: str) -> bool:
    return any(event in line for line in node.log)


async def test_no_message_is_lost_with_a_subscriber_connection(
    nodes: list[NodeProcess], peers: Peers, redis_process: RedisProcess
) -> None:
    """Redis forgets a message once it has published it; a node that was not listening has to find it in the log."""
    cut = 0
    async with crowd_on(nodes, peers) as crowd:
        for _ in range(6):
            cut += redis_process.cut_subscribers()
            await more_is_said(crowd.talkers, 10)
            await wait_until(lambda: ready(nodes, 200), what="every node listens again")
    assert cut == 6 * len(nodes)
    assert sum([await _refilled(node) for node in nodes]) > 0, "nothing was published while a node was deaf"
    await wait_until(lambda: ready(nodes, 200), what="every node is ready again")
    await crowd.all_well()


async def test_last_word_before_a_silence_is_not_lost(
    nodes: list[NodeProcess], peers: Peers, redis_process: RedisProcess
) -> None:
    """No later message gives away that one is missing: the node has to look by itself when it listens again."""
    talker = await peers.register(nodes[0].url, "talker")
    listeners = [await peers.register(node.url, f"listener{i}") for i, node in enumerate(nodes)]
    await talker.create("plaza")
    for peer in (talker, *listeners):
        await peer.join("plaza")
    for turn in range(8):
        assert redis_process.cut_subscribers() == len(nodes)
        await talker.post("plaza", f"{turn}")
        for listener in listeners:
            await wait_until(
                lambda heard=listener.messages, turn=turn: len(heard) > turn,  # type: ignore[misc]
                timeout=30,
                what="the word was found in the log",
            )
        await wait_until(lambda: ready(nodes, 200), what="every node listens again")
    assert all(listener.bodies == [str(turn) for turn in range(8)] for listener in listeners)
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


async def test_signal_to_a_node_that_is_cut_off_is_not_lost(redis_process_tcp: RedisProcess) -> None:
    """A session that moves to another node while the network is cut must not exist twice when it is restored."""
    async with one_behind_a_proxy(redis_process_tcp) as (behind, direct, proxy, peers):
        key = SigningKey.generate()
        old = peers.keep(await Peer.login(behind.url, key, "den", register=("ann", "laptop")))
        bystander = await peers.register(behind.url, "bystander")
        proxy.cut()
        await wait_until(lambda: ready([behind], 503), what="the node knows that it is cut off")
        new = peers.keep(await Peer.login(direct.url, key, "den"))
        await new.whisper(bystander.path, "can you hear me?")
        assert not old.is_closed
        proxy.mend()
        assert await old.wait_closed() == SUPERSEDED
        await wait_until(lambda: bystander.whispers, what="the whisper arrives as well")
        await wait_until(lambda: ready([behind], 200), what="the node is ready again")
        present = sorted([str(new.path), str(bystander.path)])
        assert await new.who() == await bystander.who() == present


async def test_node_that_was_cut_off_for_long_finds_its_place_again(redis_process_tcp: RedisProcess) -> None:
    """The others buried it meanwhile, its inbox included; what it was to be told it has to find out by itself."""
    async with one_behind_a_proxy(redis_process_tcp) as (behind, direct, proxy, peers):
        key = SigningKey.generate()
        old = peers.keep(await Peer.login(behind.url, key, "den", register=("ann", "laptop")))
        talker = Talker(await peers.register(direct.url, "talker"), "plaza", "talker")
        listener = await peers.register(behind.url, "listener")
        await talker.peer.create("plaza")
        await talker.peer.join("plaza")
        await listener.join("plaza")
        proxy.cut()
        new = peers.keep(await Peer.login(direct.url, key, "den"))
        async with talking([talker]):
            await wait_until(
                lambda: any("node.buried" in line for line in direct.log), what="the node that is cut off was buried"
            )
        assert await new.who() == sorted([str(new.path), str(talker.peer.path)])
        proxy.mend()
        assert await old.wait_closed() == SUPERSEDED
        present = sorted([str(new.path), str(talker.peer.path), str(listener.path)])
        await wait_until(lambda: _all_see(present, new, listener), what="the listener is present again")
        await everybody_heard([talker], [listener], talker.peer, "plaza")


async def _all_see(present: list[str], *observers: Peer) -> bool:
    return all([await observer.who() == present for observer in observers])


async def test_connections_that_went_silent_are_noticed(redis_process_tcp: RedisProcess) -> None:
    """A firewall that forgets a connection ends nothing: the node must find out that it has gone deaf."""
    async with one_behind_a_proxy(redis_process_tcp) as (behind, direct, proxy, peers):
        key = SigningKey.generate()
        old = peers.keep(await Peer.login(behind.url, key, "den", register=("ann", "laptop")))
        talker = Talker(await peers.register(direct.url, "talker"), "plaza", "talker")
        listener = await peers.register(behind.url, "listener")
        await talker.peer.create("plaza")
        await talker.peer.join("plaza")
        await listener.join("plaza")
        async with talking([talker]):
            await more_is_said([talker])
            proxy.swallow()
            new = peers.keep(await Peer.login(direct.url, key, "den"))
            said = len(talker.acknowledged)
            await wait_until(lambda: len(listener.messages) > said, timeout=15, what="the listener hears again")
        assert await old.wait_closed() == SUPERSEDED
        await everybody_heard([talker], [listener], talker.peer, "plaza")
        present = sorted([str(new.path), str(talker.peer.path), str(listener.path)])
        await wait_until(lambda: _all_see(present, new, listener), what="everybody is present")
