"""Input that no client of ours would send, from many connections at once: the node stays up, other sessions go on."""

import asyncio
import contextlib
import random
import struct

import aiohttp
import pytest
from nacl.signing import SigningKey

from conclave.model import Plain, SessionPath
from conclave.protocol import v1
from conclave.protocol.v1 import frames
from tests.support.nodes import NodeProcess
from tests.support.peer import Peer, Peers
from tests.support.traffic import Traffic, assert_all_delivered, more_is_acknowledged, posting
from tests.support.trials import by_form
from tests.support.waiting import pause, wait_until

SPARE_BYTES = 32 * 1024 * 1024
"""By how much a node may grow in a test that sends it several times as much."""
HANG_SECONDS = 5.0
"""The longest permitted wait for a reply; generous, because the attackers' own work slows this process down, too."""
NOBODY = SessionPath("x", "y", "z")
UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
GOOD: list[frames.Frame] = [
    frames.Hello(1, "den"),
    frames.Register("mallory", "laptop", bytes(32)),
    frames.Auth(bytes(32), bytes(64)),
    frames.Join("square", "token"),
    frames.ChannelMsg("square", NOBODY, Plain("x" * 300)),
    frames.Whisper(NOBODY, SessionPath("nobody", "laptop", "main"), Plain("x")),
    frames.Who("square"),
    frames.ReadSince("square", 0),
]


def rubbish(chance: random.Random) -> bytes:
    """Return random bytes, or a real frame that was cut, extended, changed, or claims lengths that it does not have."""
    frame = bytearray(v1.encode(chance.choice(GOOD)))
    match chance.randrange(6):
        case 0:
            return chance.randbytes(chance.randrange(200))
        case 1:
            return bytes(frame[: chance.randrange(len(frame))])
        case 2:
            return bytes(frame) + chance.randbytes(chance.randrange(1, 40))
        case 3:
            frame[chance.randrange(len(frame))] = chance.randrange(256)
            return bytes(frame)
        case 4:
            return bytes(frame[:4]) + b"\xfd" + b"\xff" * 8 + bytes(frame[4:])
        case _:
            return bytes([chance.randrange(30)]) + struct.pack("<Q", chance.getrandbits(64)) * 4


@pytest.fixture
async def traffic(nodes: list[NodeProcess], peers: Peers) -> Traffic:
    """A session that posts and one that reads, on the node that is attacked."""
    return await Traffic.on(nodes[:1], peers)


async def undisturbed(node: NodeProcess, traffic: Traffic, memory: int) -> None:
    """Assert that the attack left no trace."""
    (poster,) = traffic.posters
    assert node.is_running
    trouble = [i for i, line in enumerate(node.log) if "Traceback" in line or "[error" in line]
    assert not trouble, "\n".join(node.log[trouble[0] : trouble[0] + 60])
    assert not poster.refusals
    assert poster.slowest < HANG_SECONDS
    await assert_all_delivered(traffic.posters, traffic.readers, traffic.readers[0], "ops")
    assert await traffic.readers[0].who("ops") == traffic.paths
    grown = node.resident_bytes() - memory
    assert grown < SPARE_BYTES, f"the node grew by {grown / 2**20:.0f} MiB"


async def test_rubbish_before_login(nodes: list[NodeProcess], traffic: Traffic) -> None:
    """The port is open to the internet: scanners, other protocols, fuzzers."""
    memory = nodes[0].resident_bytes()
    async with aiohttp.ClientSession() as http, posting(traffic.posters):

        async def attack(seed: int) -> None:
            chance = random.Random(seed)  # noqa: S311 - the same rubbish in every run
            for _ in range(6):
                async with http.ws_connect(nodes[0].url, max_msg_size=0) as ws:
                    if chance.random() < 0.5:
                        await ws.send_bytes(v1.encode(frames.Hello(1, "den")))
                    with contextlib.suppress(ConnectionError):
                        for _ in range(20):
                            await ws.send_bytes(rubbish(chance))
                    async with asyncio.timeout(5):
                        while (await ws.receive()).type is aiohttp.WSMsgType.BINARY:
                            pass

        await asyncio.gather(*(attack(seed) for seed in range(by_form(15, 60, 600))))
        await more_is_acknowledged(traffic.posters)
    await undisturbed(nodes[0], traffic, memory)


async def test_bytes_that_are_no_http(nodes: list[NodeProcess], traffic: Traffic) -> None:
    """TLS to a plain port, endless header lines, broken frames right behind the upgrade: each costs its own sender."""
    memory = nodes[0].resident_bytes()
    host, port = nodes[0].address.split(":")
    chance = random.Random(1)  # noqa: S311 - the same rubbish in every run
    openings = [
        chance.randbytes(4000),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + chance.randbytes(500),
        b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 200_000,
        b"GET /" + b"a" * 2_000_000,
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n" + b"a" * 2_000_000,
        UPGRADE + chance.randbytes(3000),
        UPGRADE + b"\x82\xff\x7f\xff\xff\xff\xff\xff\xff\xff" + bytes(4) + b"a" * 2_000_000,  # a frame of 2**63 bytes
        UPGRADE + b"\x02\x84" + bytes(4) + b"abcd" + (b"\x00\xfe\x04\x00" + bytes(4) + b"a" * 1024) * 2000,  # endless
        UPGRADE + (b"\x89\x84" + bytes(4) + b"ping") * 200_000,
        UPGRADE + b"\xc2\x84" + bytes(4) + b"abcd",  # reserved bit
        UPGRADE + b"\x82\x04abcd",  # not masked
    ]

    async def attack(opening: bytes) -> None:
        reader, writer = await asyncio.open_connection(host, int(port))
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(20):
                writer.write(opening)
                await writer.drain()
                while await reader.read(65536):
                    pass
        writer.transport.abort()

    async with posting(traffic.posters):
        await asyncio.gather(*(attack(opening) for opening in openings * by_form(2, 8, 80)))
        await more_is_acknowledged(traffic.posters)
    await undisturbed(nodes[0], traffic, memory)


async def test_clients_that_vanish_during_the_upgrade(nodes: list[NodeProcess], traffic: Traffic) -> None:
    """Port scanners and impatient browsers do that all day: it is no error of ours, and no line in the log."""
    memory = nodes[0].resident_bytes()
    host, port = nodes[0].address.split(":")

    async def vanish(delay: int) -> None:
        _, writer = await asyncio.open_connection(host, int(port))
        writer.write(UPGRADE)
        for _ in range(delay):
            writer.write(bytes(64 * 1024))  # what ends the connection from the relay's side
            await pause(0)
        writer.transport.abort()

    async with posting(traffic.posters):
        await asyncio.gather(*(vanish(i % 4) for i in range(by_form(50, 200, 2_000))))
        await more_is_acknowledged(traffic.posters)
    await undisturbed(nodes[0], traffic, memory)


@pytest.mark.long
async def test_peers_that_never_log_in_are_bounded_and_closed(nodes: list[NodeProcess], traffic: Traffic) -> None:
    """A peer without a proven key gets a few kilobytes and a few seconds, at any pace."""
    memory = nodes[0].resident_bytes()
    host, port = nodes[0].address.split(":")
    loop = asyncio.get_running_loop()

    async def flood() -> float:
        """Megabytes in one message of a permitted length."""
        began = loop.time()
        async with aiohttp.ClientSession() as http, http.ws_connect(nodes[0].url, max_msg_size=0) as ws:
            with contextlib.suppress(ConnectionError, TimeoutError):
                async with asyncio.timeout(20):
                    await ws.send_bytes(bytes(8 * 1024 * 1024))
            async with asyncio.timeout(20):
                while (await ws.receive()).type is aiohttp.WSMsgType.BINARY:
                    pass
        return loop.time() - began

    async def trickle(opening: bytes) -> float:
        """A byte now and then, never a whole message."""
        began = loop.time()
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(opening)

        async def drip() -> None:
            while True:
                writer.write(b"x")
                await pause(0.2)

        dripping = asyncio.create_task(drip())
        try:
            with contextlib.suppress(ConnectionError):
                async with asyncio.timeout(25):
                    while await reader.read(4096):
                        pass
        finally:
            dripping.cancel()
            writer.transport.abort()
        return loop.time() - began

    async with posting(traffic.posters):
        quick = asyncio.gather(*(flood() for _ in range(30)))
        slow = asyncio.gather(
            *(trickle(b"") for _ in range(10)),
            *(trickle(b"GET / HTTP/1.1\r\nX: ") for _ in range(10)),
            *(trickle(UPGRADE + b"\x82\xfe\xff\xff" + bytes(4)) for _ in range(10)),
        )
        assert max(await quick) < 12, "a flood is cut off as soon as it is one"
        assert max(await slow) < 22, "the slow are cut off as well"
    await undisturbed(nodes[0], traffic, memory)


async def test_rubbish_after_login(nodes: list[NodeProcess], peers: Peers, traffic: Traffic) -> None:
    """A client with a defect gets an answer to each wrong frame, and the next right one works: no hang, no close."""
    await traffic.readers[0].create("square")
    memory = nodes[0].resident_bytes()

    async def attack(seed: int) -> None:
        chance = random.Random(seed)  # noqa: S311 - the same rubbish in every run
        peer = peers.keep(await Peer.dial(nodes[0].url))
        await peer._shake_hands(SigningKey.generate(), "den", (f"mallory{seed}", "laptop"))
        for _ in range(150):
            await peer.ws.send_bytes(rubbish(chance))
        for _ in range(150):
            await answer(peer)
        await peer.send(frames.Ping())
        assert await answer(peer) == frames.Pong()

    async with posting(traffic.posters):
        await asyncio.gather(*(attack(seed) for seed in range(by_form(5, 20, 200))))
        await more_is_acknowledged(traffic.posters)
    await undisturbed(nodes[0], traffic, memory)


async def answer(peer: Peer) -> frames.Frame:
    """Return the next frame that is no message."""
    while True:
        message = await peer.ws.receive(timeout=10)
        assert message.type is aiohttp.WSMsgType.BINARY, "every wrong frame has its answer"
        frame = v1.decode(message.data)
        if not isinstance(frame, frames.ChannelMsg | frames.Whisper):
            return frame


async def test_oversized_after_login(nodes: list[NodeProcess], peers: Peers, traffic: Traffic) -> None:
    """A body above the limit is refused and the session stays; a message above the protocol's ends its session only."""
    memory = nodes[0].resident_bytes()
    async with posting(traffic.posters):
        for i in range(6):
            peer = await peers.register(nodes[0].url, f"mallory{i}")
            await peer.join("ops")
            told = await peer.refusal(frames.ChannelMsg("ops", NOBODY, Plain("x" * 8 * 1024 * 1024)))
            assert "exceeds the limit of 1048576 bytes" in told
            await peer.ask(frames.Ping(), frames.Pong)
            with contextlib.suppress(ConnectionError):
                await peer.ws.send_bytes(bytes(17 * 1024 * 1024))
            await peer.wait_closed()
            await peer.close()
        await more_is_acknowledged(traffic.posters)
    await wait_until(lambda: _attackers_are_gone(traffic), what="the attackers have left presence")
    await undisturbed(nodes[0], traffic, memory)


async def _attackers_are_gone(traffic: Traffic) -> bool:
    return len(await traffic.readers[0].who("ops")) == 2


@pytest.mark.long
async def test_requests_whose_replies_are_not_read(nodes: list[NodeProcess], peers: Peers, traffic: Traffic) -> None:
    """Each request costs the sender a few bytes and the node a long answer: that must not pile up."""
    big = await peers.register(nodes[1].url, "big")
    await big.create("library")
    await big.join("library")
    for _ in range(8):
        await big.post("library", "x" * 500_000)
    memory = nodes[0].resident_bytes()
    attackers = []
    async with posting(traffic.posters):
        for i in range(6):
            peer = await peers.register(nodes[0].url, f"mallory{i}")
            await peer.join("library")
            peer.stop_reading()
            attackers.append(peer)
            for _ in range(200):  # 4 MB each, for 18 bytes
                await peer.send(frames.ReadSince("library", 0))
        await more_is_acknowledged(traffic.posters, 300)
        grown = nodes[0].resident_bytes() - memory
        assert grown < len(attackers) * 12 * 1024 * 1024 + SPARE_BYTES, f"the node grew by {grown / 2**20:.0f} MiB"
    assert traffic.posters[0].slowest < HANG_SECONDS
    await assert_all_delivered(traffic.posters, traffic.readers, traffic.readers[0], "ops")
