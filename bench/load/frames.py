"""WebSocket frames of a client, and the messages of a server. Pure.

A load sends the same few frames all the time, so they are made once. What comes back is not parsed: a body contains
`MARK`, a reply something that nothing else contains, and a session counts both where they stand in the bytes.
"""

import os
import struct
from collections.abc import Iterator

MARK = b"@#=!"
"""Is in every body, once."""
MARK_BYTES = len(MARK)
"""The length of all marks."""
BODY_BYTES = 200

_SHORT, _EXTENDED = 126, 127
_TEXT, _BINARY, _CLOSE = 1, 2, 8
_FIN, _MASKED = 0x80, 0x80


def body(size: int = BODY_BYTES) -> str:
    """Return a text of so many characters that contains the mark."""
    return MARK.decode().ljust(size, "x")


def masked(payload: bytes, *, text: bool) -> bytes:
    """Return a client's frame with the whole message."""
    mask = os.urandom(4)
    size = len(payload)
    head = bytes([_FIN | (_TEXT if text else _BINARY), _MASKED | min(size, _SHORT if size < 1 << 16 else _EXTENDED)])
    if size >= _SHORT:
        head += struct.pack("!H", size) if size < 1 << 16 else struct.pack("!Q", size)
    pattern = mask * (size // 4 + 1)
    flipped = int.from_bytes(payload, "big") ^ int.from_bytes(pattern[:size], "big")
    return head + mask + flipped.to_bytes(size, "big")


class Reader:
    """Takes the bytes of a server apart: the response to the upgrade, then whole messages."""

    def __init__(self) -> None:
        self.rest = b""
        self._upgraded = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield what is complete. A caller that stops early finds the rest in `rest`.

        Raises:
            ConnectionError: for a refused upgrade, and for a close.
        """
        self.rest += data
        if not self._upgraded:
            head, separator, rest = self.rest.partition(b"\r\n\r\n")
            if not separator:
                return
            if b" 101 " not in head.split(b"\r\n", 1)[0]:
                raise ConnectionError(f"the upgrade was refused: {head!r}")
            self._upgraded, self.rest = True, rest
            yield head
        while (frame := _frame(self.rest)) is not None:
            opcode, start, end = frame
            payload, self.rest = self.rest[start:end], self.rest[end:]
            if opcode == _CLOSE:
                raise ConnectionError(f"the server has closed: {payload!r}")
            if opcode in (_TEXT, _BINARY):
                yield payload


def _frame(data: bytes) -> tuple[int, int, int] | None:
    """Return the opcode of the first frame, and where its payload begins and ends; None if it is not complete."""
    if len(data) < 2:  # noqa: PLR2004 - the shortest head
        return None
    size, start = data[1], 2
    if size >= _SHORT:
        start += 2 if size == _SHORT else 8
        if len(data) < start:
            return None
        size = int.from_bytes(data[2:start], "big")
    return None if len(data) < start + size else (data[0] & 0x0F, start, start + size)
