"""Random input before and after the login, while two well-behaved sessions talk on undisturbed."""

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
async def talk(url: str, peers: Peers) -> AsyncIterator[Callable[[], int]]:
    """Two sessions that speak to each other until the test is over, and must not miss a word. Gives the count."""
    ann, bob = await peers.register(url, "ann"), await peers.register(url, "bob")
    await ann.create("ops", Visibility.PRIVATE)  # or the noise might find its way in
    await ann.join("ops")
    await bob.join("ops", await ann.invite("ops"))
    said: list[str] = []
    over = asyncio.Event()

    async def speak() -> None:
        while not over.is_set():
            said.append(str(len(said)))
            await ann.post("ops", said[-1])
            await wait_until(lambda: len(bob.bodies) == len(said), what="the word arrived")

    speaking = asyncio.create_task(speak())
    yield lambda: len(said)
    before = len(said)
    await wait_until(lambda: len(said) > before + 5 or speaking.done(), what="the talk goes on")
    over.set()
    await speaking
    assert bob.bodies == said
    assert [await peer.ask(frames.Ping(), frames.Pong) for peer in (ann, bob)] == [frames.Pong()] * 2


@pytest.mark.parametrize("seed", range(3))
async def test_noise_before_the_login_ends_in_a_refusal_and_disturbs_nobody(
    url: str, talk: Callable[[], int], seed: int
) -> None:
    """Each of these connections is closed by the node, after at most a few frames."""
    rng = random.Random(seed)  # noqa: S311 - reproducible noise
    before = talk()
    for _ in range(ROUNDS // 3):
        peer = await Peer.dial(url)
        try:
            await exchange(peer, [noise(rng) for _ in range(4)], greet=rng.random() < 0.5)
        finally:
            await peer.close()
    await wait_until(lambda: talk() > before, what="the talk went on")


async def exchange(peer: Peer, messages: list[bytes], *, greet: bool) -> None:
    """Send some messages, perhaps behind a good Hello, and wait for the node's close."""
    with contextlib.suppress(ConnectionError):
        if greet:
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
async def test_noise_before_the_upgrade_disturbs_nobody(url: str, talk: Callable[[], int], seed: int) -> None:
    """Bytes that are no HTTP, and bytes that are no WebSocket after an upgrade."""
    rng = random.Random(seed)  # noqa: S311 - reproducible noise
    host, _, port = url.removeprefix("ws://").rstrip("/").partition(":")
    upgrade = (
        b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    before = talk()
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
    await wait_until(lambda: talk() > before, what="the talk went on")


@pytest.mark.parametrize("seed", range(3))
async def test_noise_after_the_login_is_answered_message_by_message(
    url: str, talk: Callable[[], int], seed: int
) -> None:
    """One reply each, and the session that makes the noise is still good for a Ping."""
    rng = random.Random(seed)  # noqa: S311 - reproducible noise
    before = talk()
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
    await wait_until(lambda: talk() > before, what="the talk went on")
