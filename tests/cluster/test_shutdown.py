"""A node that is told to stop: its sessions are told why, leave presence at once, and it ends cleanly."""

import asyncio

import aiohttp
import pytest
from nacl.signing import SigningKey

from conclave.protocol.v1 import frames
from tests.support.nodes import NodeProcess
from tests.support.peer import Peer, Peers, Refused
from tests.support.traffic import Talker, everybody_heard, more_is_said, talking
from tests.support.waiting import wait_until

SHUTDOWN = "unauthorized: the relay is shutting down; reconnect"


async def test_stopped_node_says_goodbye_and_leaves(nodes: list[NodeProcess], peers: Peers) -> None:
    """Deploys stop nodes all the time. Clients must know at once that they may reconnect, and nobody sees ghosts."""
    guests = [await peers.register(nodes[0].url, f"guest{i}") for i in range(20)]
    observer = await peers.register(nodes[1].url, "observer")
    await observer.create("plaza")
    for peer in (observer, *guests):
        await peer.join("plaza")
    assert await nodes[0].stop() == 0
    assert await observer.who() == await observer.who("plaza") == [str(observer.path)], "gone when the process is"
    assert [await guest.wait_closed() for guest in guests] == [SHUTDOWN] * 20


async def test_goodbye_is_a_clean_close(nodes: list[NodeProcess], peers: Peers) -> None:
    """A client that sees a connection break without a close reports an error; one that is told may just reconnect."""
    guest = peers.keep(await Peer.dial(nodes[0].url))
    await guest._shake_hands(SigningKey.generate(), "den", register=("guest", "laptop"))
    stopping = asyncio.create_task(nodes[0].stop())
    with pytest.raises(Refused, match=SHUTDOWN):
        await guest.read(frames.Pong)
    assert (await guest.ws.receive(timeout=5)).type is aiohttp.WSMsgType.CLOSE
    assert await stopping == 0


async def test_rolling_restart_loses_nothing(nodes: list[NodeProcess], peers: Peers) -> None:
    """Three nodes replaced one after the other: who is on another node notices nothing but people who come and go."""
    talker = Talker(await peers.register(nodes[2].url, "talker"), "plaza", "talker")
    listener = await peers.register(nodes[2].url, "listener")
    await listener.create("plaza")
    await listener.join("plaza")
    await talker.peer.join("plaza")
    async with talking([talker]):
        for node in nodes[:2]:
            guest = await peers.register(node.url, f"guest{node.pid}")
            await guest.join("plaza")
            await more_is_said([talker])
            assert await node.stop() == 0
            assert await guest.wait_closed() == SHUTDOWN
            await node.start()
            again = await peers.register(node.url, f"again{node.pid}")
            await again.join("plaza")
            assert str(again.path) in await listener.who("plaza")
            assert str(guest.path) not in await listener.who("plaza")
    assert talker.refusals == []
    await everybody_heard([talker], [listener], listener, "plaza")


async def test_login_that_meets_the_shutdown_is_told_so(nodes: list[NodeProcess], peers: Peers) -> None:
    """A session that slipped in behind the goodbyes would be cut without a word, long after the others."""
    async with asyncio.timeout(30):
        halfway = [peers.keep(await Peer.dial(nodes[0].url)) for _ in range(5)]
        keys = [SigningKey.generate() for _ in halfway]
        challenges = []
        for peer in halfway:
            await peer.send(frames.Hello(1, "den"))
            challenges.append(await peer.read(frames.Challenge))
        guest = await peers.register(nodes[0].url, "guest")
        stopping = asyncio.create_task(nodes[0].stop())
        assert await guest.wait_closed() == SHUTDOWN
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
    guest = await peers.register(nodes[0].url, "guest")
    silent = [await asyncio.open_connection(*nodes[0].address.split(":")) for _ in range(3)]
    silent[1][1].write(b"GET / HTTP/1.1\r\nHost: x\r\n")
    peers.keep(await Peer.dial(nodes[0].url))
    async with aiohttp.ClientSession() as kept_alive:
        async with kept_alive.get(f"http://{nodes[0].address}/health") as response:
            assert response.status == 200
        async with asyncio.timeout(30):
            assert await nodes[0].stop() == 0
    assert await guest.wait_closed() == SHUTDOWN
    for _, writer in silent:
        writer.close()
    await wait_until(lambda: not nodes[0].is_running, what="the node has ended")
