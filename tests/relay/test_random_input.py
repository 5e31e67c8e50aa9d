"""Random input before and after the login, while two other sessions go on undisturbed."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable

import aiohttp
import pytest
from nacl.signing import SigningKey

from conclave.model import Plain, SessionPath, Visibility
from conclave.protocol import v1
from conclave.protocol.v1 import admin, frames
from tests.support.peer import Peer, Peers
from tests.support.waiting import wait_until

ROUNDS = 150
NOWHERE = SessionPath("x", "y", "z")
SAMPLES = [
    v1.encode(frame)
    for frame in (
        frames.Hello(1, "main"),
        frames.Auth(bytes(32), bytes(64)),
        frames.Register("eve", "laptop", bytes(32)),
        frames.Join("ops", "token"),
        frames.Who("ops"),
        frames.ChannelMsg("noise", NOWHERE, Plain("hi")),
        frames.Whisper(NOWHERE, NOWHERE, Plain("hi")),
        frames.ReadSince("ops", 2**62),
        frames.Admin(admin.CreateChannel("noise", Visibility.PUBLIC)),
        frames.Admin(admin.MachineAdd("desktop", bytes(32))),
        frames.Admin(admin.InviteCreate("ops", 2**31, 2**62)),
        frames.Presence("ops", (NOWHERE,) * 3),
    )
]


def noise(rng: random.Random) -> bytes:
    """Bytes, a frame with some of its bytes changed, a truncated frame, or a frame with a huge length in it."""
    match rng.randrange(4):
        case 0:
            return rng.randbytes(rng.randrange(200))
        case 1:
            changed = bytearray(rng.choice(SAMPLES))
            for _ in range(rng.randrange(1, 4)):
                changed[rng.randrange(len(changed))] = rng.randrange(256)
            return bytes(changed)
        case 2:
            frame = rng.choice(SAMPLES)
            return frame[: rng.randrange(len(frame))]
        case _:
            frame = rng.choice(SAMPLES)
            at = rng.randrange(1, len(frame) + 1)
            return frame[:at] + b"\xfd" + rng.randbytes(8) + frame[at:]


@pytest.fixture
async def traffic(url: str, peers: Peers) -> AsyncIterator[Callable[[], int]]:
    """Two sessions that post to each other until the test is over, and must not miss a message. Gives the count."""
    ann, bob = await peers.register(url, "ann"), await peers.register(url, "bob")
    await ann.create("ops", Visibility.PRIVATE)  # random input must not join it
    await ann.join("ops")
    await bob.join("ops", await ann.invite("ops"))
    posted: list[str] = []
    over = asyncio.Event()

    async def post() -> None:
        while not over.is_set():
            posted.append(str(len(posted)))
            await ann.post("ops", posted[-1])
            await wait_until(lambda: len(bob.bodies) == len(posted), what="the message arrived")

    posting = asyncio.create_task(post())
    yield lambda: len(posted)
    before = len(posted)
    await wait_until(lambda: len(posted) > before + 5 or posting.done(), what="posting goes on")
    over.set()
    await posting
    assert bob.bodies == posted
    assert [await peer.ask(frames.Ping(), frames.Pong) for peer in (ann, bob)] == [frames.Pong()] * 2


@pytest.mark.parametrize("seed", range(3))
async def test_random_messages_before_the_login_are_refused(url: str, traffic: Callable[[], int], seed: int) -> None:
    """The node closes each of these connections after at most a few frames, and other sessions are not disturbed."""
    rng = random.Random(seed)  # noqa: S311 - reproducible noise
    before = traffic()
    for _ in range(ROUNDS // 3):
        peer = await Peer.dial(url)
        try:
            await exchange(peer, [noise(rng) for _ in range(4)], with_hello=rng.random() < 0.5)
        finally:
            await peer.close()
    await wait_until(lambda: traffic() > before, what="posting went on")


async def exchange(peer: Peer, messages: list[bytes], *, with_hello: bool) -> None:
    """Send some messages, perhaps after a valid Hello, and wait for the node's close."""
    with contextlib.suppress(ConnectionError):
        if with_hello:
            await peer.send(frames.Hello(1, "main"))
        for message in messages:
            await peer.ws.send_bytes(message)
        await peer.send(frames.Ping())
        await peer.send(frames.Ping())
    replies = 0
    while (await peer.ws.receive(timeout=10)).type is aiohttp.WSMsgType.BINARY:
        replies += 1
    assert replies <= 2, "a challenge and a refusal at most"


@pytest.mark.parametrize("seed", range(3))
async def test_random_bytes_before_the_upgrade_disturb_nobody(url: str, traffic: Callable[[], int], seed: int) -> None:
    """Bytes that are no HTTP, and bytes that are no WebSocket after an upgrade."""
    rng = random.Random(seed)  # noqa: S311 - reproducible noise
    host, _, port = url.removeprefix("ws://").rstrip("/").partition(":")
    upgrade = (
        b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    before = traffic()
    for _ in range(ROUNDS // 3):
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write((upgrade if rng.random() < 0.5 else b"") + rng.randbytes(rng.randrange(1, 400)))
        writer.write_eof()
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(10):
                await reader.read()
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
    await wait_until(lambda: traffic() > before, what="posting went on")


@pytest.mark.parametrize("seed", range(3))
async def test_random_messages_after_the_login_have_one_reply_each(
    url: str, traffic: Callable[[], int], seed: int
) -> None:
    """The session that sends them still gets a Pong."""
    rng = random.Random(seed)  # noqa: S311 - reproducible noise
    before = traffic()
    peer = await Peer.dial(url)
    try:
        await peer._shake_hands(SigningKey.generate(), "main", (f"eve{seed}", "laptop"))
        for _ in range(ROUNDS):
            await peer.ws.send_bytes(noise(rng))
            reply = v1.decode(await peer.ws.receive_bytes(timeout=10))
            assert not isinstance(reply, frames.ChannelMsg | frames.Whisper)
        await peer.send(frames.Ping())
        assert await peer.read(frames.Pong) == frames.Pong()
    finally:
        await peer.close()
    await wait_until(lambda: traffic() > before, what="posting went on")
