"""A client's WebSocket at a node, byte by byte: control frames, violations, and the end of a connection."""

import asyncio
import json
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import pytest

from conclave.protocol.v1 import frames
from relay.transport.long_messages import LongMessages
from tests.fuzz.websocket_targets import frame
from tests.support.peer import Peers
from tests.support.waiting import wait_until

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
LONG = frame(BINARY, bytes(15 * 1024 * 1024))
HELLO = {"op": "hello", "protocol": 2, "session": "main", "origin": "ws://relay", "client": "test"}


class RawClient:
    """A connection after its upgrade."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def read(self) -> tuple[int, bytes]:
        """Return the next frame: its opcode and its payload."""
        first, size = await self.reader.readexactly(2)
        if size == 126:
            (size,) = struct.unpack("!H", await self.reader.readexactly(2))
        return first & 0x0F, await self.reader.readexactly(size)

    async def closed_with(self) -> int:
        """Return the code of the close that the node sends; 0 for one without a code."""
        async with asyncio.timeout(20):
            while True:
                opcode, payload = await self.read()
                if opcode == CLOSE:
                    return int.from_bytes(payload[:2], "big")


@asynccontextmanager
async def upgraded(url: str, behind: bytes = b"") -> AsyncIterator[RawClient]:
    """Connect and upgrade; `behind` is sent together with the request."""
    address = urlsplit(url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    writer.write(
        b"GET / HTTP/1.1\r\nHost: relay\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n"
        b"Sec-WebSocket-Protocol: conclave.v2\r\n\r\n" + behind
    )
    try:
        async with asyncio.timeout(20):
            head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 ")
        assert b"Sec-WebSocket-Accept: BACScCJPNqyz+UBoqMH89VmURoA=" in head
        yield RawClient(reader, writer)
    finally:
        writer.close()


def hello() -> bytes:
    return frame(TEXT, json.dumps(HELLO).encode())


@pytest.mark.parametrize("cut", [lambda data: [data], lambda data: [data[i : i + 1] for i in range(len(data))]])
async def test_a_message_behind_the_request_is_answered(url: str, cut: Callable[[bytes], list[bytes]]) -> None:
    """A client may send before it has read the answer to the upgrade; in one packet with it, or in many later ones."""
    first, *rest = cut(hello())
    async with upgraded(url, first) as client:
        for part in rest:
            client.writer.write(part)
            await client.writer.drain()
        async with asyncio.timeout(20):
            opcode, payload = await client.read()
    assert opcode == TEXT
    assert json.loads(payload)["ev"] == "challenge"


async def test_pings_of_one_turn_have_one_pong_with_the_last_payload(url: str, peers: Peers) -> None:
    """RFC 6455, section 5.5.3. A flood costs nobody else an answer."""
    ann = await peers.register(url, "ann")
    pings = [b"%d" % number for number in range(3000)]
    async with upgraded(url) as client:
        client.writer.write(b"".join(frame(PING, ping) for ping in pings))
        assert await ann.who()
        pongs: list[bytes] = []
        async with asyncio.timeout(20):
            while not pongs or pongs[-1] != pings[-1]:
                opcode, payload = await client.read()
                assert opcode == PONG
                pongs.append(payload)
    assert len(pongs) <= len(pings) // 20
    assert pongs == sorted(pongs, key=int)


VIOLATIONS = {
    "no mask": (b"\x81\x02hi", 1002),
    "no UTF-8": (frame(TEXT, b"\xff"), 1007),
    "too long": (b"\x81\xff" + (2**40).to_bytes(8, "big") + bytes(4), 1009),
    "a close code that is never sent": (frame(CLOSE, b"\x03\xed"), 1002),
}


@pytest.mark.parametrize("what", VIOLATIONS)
async def test_a_violation_is_closed_with_its_code(url: str, what: str) -> None:
    """Before the login as after it."""
    data, code = VIOLATIONS[what]
    async with upgraded(url) as client:
        client.writer.write(data)
        assert await client.closed_with() == code


async def test_a_client_that_ends_its_side_gets_its_replies(url: str) -> None:
    """It has asked, and only says that it asks nothing more."""
    async with upgraded(url) as client:
        client.writer.write(hello())
        client.writer.write_eof()
        async with asyncio.timeout(20):
            opcode, payload = await client.read()
            assert opcode == TEXT
            assert json.loads(payload)["ev"] == "challenge"
            await client.closed_with()
            assert await client.reader.read() == b""


async def test_a_long_message_in_many_pieces_is_taken_before_the_login(url: str) -> None:
    """Below the limit for clients that have not logged in."""
    async with upgraded(url) as client:
        message = json.dumps({**HELLO, "more": "x" * 40_000}).encode()
        for at in range(0, len(message), 8_000):
            last = at + 8_000 >= len(message)
            client.writer.write(frame(0 if at else TEXT, message[at : at + 8_000], final=last) + frame(PING, b""))
        async with asyncio.timeout(20):
            while (await client.read())[0] == PONG:
                pass


async def test_the_memory_for_long_messages_that_are_incomplete_is_bounded(url: str, peers: Peers) -> None:
    """16 MiB are permitted, but not on every connection at a time; one that ends makes room again."""
    several = [await peers.register(url, f"user{number}") for number in range(5)]
    for peer in several:
        peer.ws._writer.transport.write(LONG[:100_000])
    await wait_until(lambda: sum(peer.is_closed for peer in several) == 1, what="one of them is closed")
    for peer in several:
        await peer.close()
    patient = await peers.register(url, "patient")

    async def is_read() -> bool:
        return len(await patient.refusal(frames.Leave("x" * 10_000_000))) > 0

    await wait_until(is_read, what="a long message is read")


def test_a_client_of_long_messages_counts_once() -> None:
    """Its claim grows with the parts of its message."""
    long_messages = LongMessages(usual=1000)
    mib = 1024 * 1024
    assert all(long_messages.claim("ann", size * mib) for size in (1, 16, 64))
    assert not long_messages.claim("bob", 2000)
    assert not long_messages.claim("ann", 65 * mib)
    long_messages.release("ann")
    assert long_messages.claim("bob", 2000)
