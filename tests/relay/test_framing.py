"""Frames according to the standard, checked with aiohttp's reader."""

import asyncio

import pytest
from aiohttp import WSMsgType
from aiohttp._websocket.reader import WebSocketDataQueue
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http_websocket import WebSocketReader

from relay.protocol.framing import CLOSE, binary_frame, close_frame, text_frame

SIZES = (0, 1, 125, 126, 127, 65_535, 65_536, 65_537, 1_000_000)


def reader() -> tuple[WebSocketReader, WebSocketDataQueue]:
    loop = asyncio.get_running_loop()
    queue = WebSocketDataQueue(BaseProtocol(loop), 2**24, loop=loop)
    return WebSocketReader(queue, 2**24, compress=False, decode_text=True), queue


@pytest.mark.parametrize("size", SIZES)
async def test_a_message_of_any_length_is_read_as_it_was_written(size: int) -> None:
    """The header has three forms; a wrong threshold corrupts everything behind the frame."""
    message = bytes(n % 251 for n in range(size))
    parser, queue = reader()
    parser.feed_data(binary_frame(message) + binary_frame(b"behind"))
    first, second = await queue.read(), await queue.read()
    assert (first.type, first.data) == (WSMsgType.BINARY, message)
    assert second.data == b"behind"


@pytest.mark.parametrize(("size", "header"), [(125, 2), (126, 4), (65_535, 4), (65_536, 10)])
def test_the_shortest_header_is_used(size: int, header: int) -> None:
    """The standard demands the minimal form; strict peers close otherwise."""
    assert len(binary_frame(b"." * size)) == header + size


async def test_frames_joined_into_one_write_are_read_one_by_one() -> None:
    """An outbox joins what is pending for one session."""
    messages = [b"." * size for size in SIZES]
    parser, queue = reader()
    parser.feed_data(b"".join(map(binary_frame, messages)) + CLOSE)
    assert [(await queue.read()).data for _ in messages] == messages
    close = await queue.read()
    assert (close.type, close.data) == (WSMsgType.CLOSE, 0)


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65_535, 65_536])
def test_a_text_frame_differs_in_its_kind_only(size: int) -> None:
    """The same lengths as binary ones."""
    binary, text = binary_frame(b"x" * size), text_frame(b"x" * size)
    assert text[0] == 0x81
    assert text[1:] == binary[1:]


def test_a_close_frame_holds_what_fits_of_its_reason() -> None:
    """125 bytes in all, and no half of a character: clients drop a connection for that."""
    assert close_frame(4001, "no") == b"\x88\x04\x0f\xa1no"
    frame = close_frame(4007, "x" + "ö" * 100)
    assert frame[1] == len(frame) - 2 == 2 + 123
    assert frame[4:].decode() == "x" + "ö" * 61
    assert close_frame(1000, "") == b"\x88\x02\x03\xe8"
