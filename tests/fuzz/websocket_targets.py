"""The reader of a client's WebSocket frames, whatever the bytes are and however they arrive."""

import struct

from relay.transport.frame_reader import Frame, FrameReader, Violation

LIMIT = 4096
_MASK = b"\x01\x02\x03\x04"


def frame(opcode: int, payload: bytes, *, final: bool = True) -> bytes:
    """Return a client's frame (RFC 6455, section 5.2)."""
    size = len(payload)
    first = opcode | (0x80 if final else 0)
    if size < 126:
        head = struct.pack("!BB", first, 0x80 | size)
    elif size < 65_536:
        head = struct.pack("!BBH", first, 0x80 | 126, size)
    else:
        head = struct.pack("!BBQ", first, 0x80 | 127, size)
    return head + _MASK + bytes(byte ^ _MASK[i % 4] for i, byte in enumerate(payload))


FRAMES = [
    frame(1, b'{"op":"ping","id":1}'),
    frame(2, b"x" * 200),
    frame(1, b"a", final=False) + frame(9, b"p") + frame(0, b"b"),
    frame(8, b"\x03\xe8bye"),
    frame(10, b""),
    frame(2, b"x" * (LIMIT + 1)),
    b"\x81\x05hello",
    b"\x82\xff" + b"\xff" * 8 + _MASK,
]


def read(data: bytes, sizes: list[int]) -> tuple[list[Frame], int | None]:
    """Return what a reader makes of bytes that arrive in pieces, and the code of the violation that ends them."""
    reader, out, at = FrameReader(limit=LIMIT), list[Frame](), 0
    try:
        for size in [*sizes, len(data)]:
            reader.feed(data[at : at + size])
            at += size
            while (received := reader.next()) is not None:
                out.append(received)
                assert len(received.data) <= LIMIT
            if reader.buffered:
                assert reader.missing
    except Violation as violation:
        return out, violation.code
    return out, None


def frames(data: bytes) -> None:
    """Whole or byte by byte, the same frames come out, and nothing but a violation is raised."""
    assert read(data, []) == read(data, [1] * len(data))
