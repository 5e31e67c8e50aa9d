"""The shutdown of a node: its sessions get the reason, leave presence at once, and the process ends cleanly."""

import asyncio

import aiohttp
import pytest
from nacl.signing import SigningKey

from conclave.protocol.v1 import frames
from tests.support.nodes import NodeProcess
from tests.support.peer import Peer, Peers, Refused
from tests.support.traffic import Poster, assert_all_delivered, more_is_acknowledged, posting
from tests.support.waiting import wait_until

SHUTDOWN = "unauthorized: the relay is shutting down; reconnect"


async def test_a_stopped_node_closes_its_sessions_and_leaves_presence(nodes: list[NodeProcess], peers: Peers) -> None:
    """Deploys stop nodes all the time. Clients must know that they may reconnect, and presence must be right."""
    sessions = [await peers.register(nodes[0].url, f"user{i}") for i in range(20)]
    observer = await peers.register(nodes[1].url, "observer")
    await observer.create("ops")
    for peer in (observer, *sessions):
        await peer.join("ops")
    assert await nodes[0].stop() == 0
    assert await observer.who() == await observer.who("ops") == [str(observer.path)], "gone when the process is"
    assert [await peer.wait_closed() for peer in sessions] == [SHUTDOWN] * 20


async def test_the_close_is_clean(nodes: list[NodeProcess], peers: Peers) -> None:
    """A client reports an error if a connection breaks without a close; after a close it just reconnects."""
    peer = peers.keep(await Peer.dial(nodes[0].url))
    await peer._shake_hands(SigningKey.generate(), "den", register=("user", "laptop"))
    stopping = asyncio.create_task(nodes[0].stop())
    with pytest.raises(Refused, match=SHUTDOWN):
        await peer.read(frames.Pong)
    assert (await peer.ws.receive(timeout=5)).type is aiohttp.WSMsgType.CLOSE
    assert await stopping == 0


async def test_rolling_restart_loses_nothing(nodes: list[NodeProcess], peers: Peers) -> None:
    """Three nodes are replaced one after the other: sessions on others notice nothing but changes of presence."""
    poster = Poster(await peers.register(nodes[2].url, "poster"), "ops", "poster")
    reader = await peers.register(nodes[2].url, "reader")
    await reader.create("ops")
    await reader.join("ops")
    await poster.peer.join("ops")
    async with posting([poster]):
        for node in nodes[:2]:
            peer = await peers.register(node.url, f"user{node.pid}")
            await peer.join("ops")
            await more_is_acknowledged([poster])
            assert await node.stop() == 0
            assert await peer.wait_closed() == SHUTDOWN
            await node.start()
            new_peer = await peers.register(node.url, f"again{node.pid}")
            await new_peer.join("ops")
            assert str(new_peer.path) in await reader.who("ops")
            assert str(peer.path) not in await reader.who("ops")
    assert poster.refusals == []
    await assert_all_delivered([poster], [reader], reader, "ops")


async def test_a_login_during_the_shutdown_gets_the_reason(nodes: list[NodeProcess], peers: Peers) -> None:
    """A session that logged in after the closes would be cut without a reason, long after the others."""
    async with asyncio.timeout(30):
        halfway = [peers.keep(await Peer.dial(nodes[0].url)) for _ in range(5)]
        keys = [SigningKey.generate() for _ in halfway]
        challenges = []
        for peer in halfway:
            await peer.send(frames.Hello(1, "den"))
            challenges.append(await peer.read(frames.Challenge))
        peer = await peers.register(nodes[0].url, "user")
        stopping = asyncio.create_task(nodes[0].stop())
        assert await peer.wait_closed() == SHUTDOWN
        told = []
        for i, (peer, key, challenge) in enumerate(zip(halfway, keys, challenges, strict=True)):
            pubkey = bytes(key.verify_key)
            proof = frames.Auth(pubkey, key.sign(challenge.nonce).signature)
            told.append(await _ending(peer, frames.Register(f"late{i}", "laptop", pubkey), proof))
        assert await stopping == 0
    assert set(told) <= {SHUTDOWN, "closed"}
    observer = await peers.register(nodes[1].url, "observer")
    assert await observer.who() == [str(observer.path)]


async def _ending(peer: Peer, *login: frames.Frame) -> str:
    """Return the end of a login during the shutdown; the port may have been closed before it."""
    try:
        for frame in login:
            await peer.send(frame)
        await peer.read(frames.Established)
    except Refused as refused:
        return str(refused)
    except (AssertionError, ConnectionError):
        return "closed"
    return "established"


async def test_idle_connections_do_not_delay_the_end(nodes: list[NodeProcess], peers: Peers) -> None:
    """A load balancer's open connections and half-open clients are no reason to be killed after a grace period."""
    peer = await peers.register(nodes[0].url, "user")
    silent = [await asyncio.open_connection(*nodes[0].address.split(":")) for _ in range(3)]
    silent[1][1].write(b"GET / HTTP/1.1\r\nHost: x\r\n")
    peers.keep(await Peer.dial(nodes[0].url))
    async with aiohttp.ClientSession() as kept_alive:
        async with kept_alive.get(f"http://{nodes[0].address}/health") as response:
            assert response.status == 200
        async with asyncio.timeout(30):
            assert await nodes[0].stop() == 0
    assert await peer.wait_closed() == SHUTDOWN
    for _, writer in silent:
        writer.close()
    await wait_until(lambda: not nodes[0].is_running, what="the node has ended")
