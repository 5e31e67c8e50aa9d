"""WebSocket frames out of the bytes of a client (RFC 6455, section 5): bytes in, whole messages and control frames out.

A frame is taken only when all of it has arrived, and nothing is copied until then: a frame that comes in many pieces
costs no more than one that comes in one. No I/O, and no memory beyond the limit for messages.
"""

import struct
from enum import IntEnum
from typing import NamedTuple

from aiohttp._websocket.helpers import websocket_mask  # compiled; the locks and a test hold its private name

from conclave.errors import ConclaveError

_HEADER_BYTES, _MASK_BYTES = 2, 4
_LONGEST_CONTROL = 125
_FINAL, _RESERVED, _OPCODE = 0x80, 0x70, 0x0F
_MASKED, _LENGTH = 0x80, 0x7F
_LENGTH_16 = 126
"""The length field of a frame that has its length in the next two bytes; above it, in the next eight."""
_CONTROL = 0x8
_EMPTY = b""


class Opcode(IntEnum):
    """The meaning of a frame."""

    CONTINUATION = 0x0
    TEXT = 0x1
    BINARY = 0x2
    CLOSE = 0x8
    PING = 0x9
    PONG = 0xA


_OPCODES = {opcode.value: opcode for opcode in Opcode}


class Violation(ConclaveError):
    """Bytes that are not the WebSocket protocol; the connection is closed with `code` (RFC 6455, section 7.4.1)."""

    PROTOCOL_ERROR = 1002
    INVALID_TEXT = 1007
    TOO_BIG = 1009

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class Frame(NamedTuple):
    """A whole message (TEXT, BINARY), a control frame, or a part of a message, which is empty (CONTINUATION)."""

    opcode: Opcode
    data: bytes


class FrameReader:
    """Reads one client's frames.

    Each call of `next` returns one frame, so that the caller decides how many of them it takes at a time.
    """

    __slots__ = ("_at", "_buffer", "_limit", "_message", "_message_opcode", "_needed")

    def __init__(self, *, limit: int) -> None:
        """`limit` bounds a message, in bytes, whether in one frame or in many."""
        self._limit = limit
        self._buffer: bytes | bytearray = _EMPTY
        self._at = 0
        self._needed = _HEADER_BYTES
        self._message: bytearray | None = None
        self._message_opcode = Opcode.CONTINUATION

    @property
    def buffered(self) -> int:
        """Bytes that were fed and not taken yet."""
        return len(self._buffer) - self._at

    @property
    def missing(self) -> bool:
        """True if the next frame is known to be incomplete."""
        return self.buffered < self._needed

    @property
    def claimed(self) -> int:
        """Bytes of the message that has not arrived completely, as far as its size is known."""
        return self._needed + (0 if self._message is None else len(self._message))

    def feed(self, data: bytes) -> None:
        """Take what has arrived."""
        if self._at == len(self._buffer):
            self._buffer, self._at = data, 0
            return
        if self._at or not isinstance(self._buffer, bytearray):
            self._buffer, self._at = bytearray(self._buffer[self._at :]), 0
        self._buffer += data

    def next(self) -> Frame | None:
        """Return the next frame, or None until all of it has arrived.

        Raises:
            Violation: nothing that follows can be read.
        """
        size = len(self._buffer) - self._at
        if size < self._needed:
            return None
        buffer, at = self._buffer, self._at
        first, second = buffer[at], buffer[at + 1]
        if not second & _MASKED:
            raise Violation(Violation.PROTOCOL_ERROR, "a client's frame is masked")
        length = second & _LENGTH
        extended = 0 if length < _LENGTH_16 else 2 if length == _LENGTH_16 else 8
        start = at + _HEADER_BYTES + extended + _MASK_BYTES
        if size < start - at:
            self._needed = start - at
            return None
        if extended:
            length = int.from_bytes(buffer[at + _HEADER_BYTES : start - _MASK_BYTES], "big")
        opcode = self._checked(first, length)
        end = start + length
        if size < end - at:
            self._needed = end - at
            return None
        payload = unmask(buffer[start:end], bytes(buffer[start - _MASK_BYTES : start])) if length else _EMPTY
        self._needed = _HEADER_BYTES
        if end == len(buffer):
            self._buffer, self._at = _EMPTY, 0
        else:
            self._at = end
        if opcode >= _CONTROL or (first & _FINAL and self._message is None):
            return Frame(opcode, payload)
        return self._part(opcode, payload, final=bool(first & _FINAL))

    def discard(self) -> None:
        """Forget everything that was fed."""
        self._buffer, self._at, self._needed, self._message = _EMPTY, 0, _HEADER_BYTES, None

    def _checked(self, first: int, length: int) -> Opcode:
        opcode = _OPCODES.get(first & _OPCODE)
        if opcode is None or first & _RESERVED:
            raise Violation(Violation.PROTOCOL_ERROR, "an unknown kind of frame")
        if opcode >= _CONTROL:
            if length > _LONGEST_CONTROL or not first & _FINAL:
                raise Violation(Violation.PROTOCOL_ERROR, "a control frame is short and whole")
            return opcode
        if (opcode is Opcode.CONTINUATION) != (self._message is not None):
            raise Violation(Violation.PROTOCOL_ERROR, "the parts of a message follow each other")
        if length + len(self._message or _EMPTY) > self._limit:
            raise Violation(Violation.TOO_BIG, f"a message exceeds {self._limit} bytes")
        return opcode

    def _part(self, opcode: Opcode, payload: bytes, *, final: bool) -> Frame:
        """Add a part of a message. Returns the message with its last part."""
        if self._message is None:
            self._message, self._message_opcode = bytearray(), opcode
        self._message += payload
        if not final:
            return Frame(Opcode.CONTINUATION, _EMPTY)
        message, self._message = bytes(self._message), None
        return Frame(self._message_opcode, message)


def unmask(payload: bytes | bytearray, mask: bytes) -> bytes:
    """Return a payload without its mask (RFC 6455, section 5.3)."""
    plain = bytearray(payload)
    websocket_mask(mask, plain)
    return bytes(plain)


def check_close(payload: bytes) -> None:
    """Check the code and the reason of a close frame (RFC 6455, section 7.4). Raises: Violation."""
    if not payload:
        return
    if len(payload) == 1:
        raise Violation(Violation.PROTOCOL_ERROR, "a close code has two bytes")
    (code,) = struct.unpack_from("!H", payload)
    if not (code in _CLOSE_CODES or _PRIVATE_CODES[0] <= code <= _PRIVATE_CODES[1]):
        raise Violation(Violation.PROTOCOL_ERROR, f"{code} is no close code")
    text(payload[2:])


_CLOSE_CODES = frozenset({1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014})
_PRIVATE_CODES = (3000, 4999)


def text(data: bytes) -> str:
    """Return the text of a message. Raises: Violation."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise Violation(Violation.INVALID_TEXT, "text is UTF-8") from None
