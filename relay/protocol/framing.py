"""WebSocket frames from the server's side (RFC 6455, section 5.2): unmasked, so one frame serves every recipient."""

import struct

_TEXT, _BINARY, _CLOSE, _PONG = 0x81, 0x82, 0x88, 0x8A
_SHORT, _MEDIUM = 126, 65_536

_REASON_BYTES = 123

CLOSE = b"\x88\x00"
"""A close frame without a status code."""


def binary_frame(message: bytes) -> bytes:
    """Return `message` as one final binary frame."""
    return _frame(_BINARY, message)


def text_frame(message: bytes) -> bytes:
    """Return `message`, which is UTF-8, as one final text frame."""
    return _frame(_TEXT, message)


def close_frame(code: int, reason: str) -> bytes:
    """Return a close frame with a code and as much of the reason as fits: 123 bytes of whole characters."""
    text = reason.encode()[:_REASON_BYTES].decode(errors="ignore").encode()
    return _frame(_CLOSE, struct.pack("!H", code) + text)


def pong_frame(payload: bytes) -> bytes:
    """Return the answer to a ping with this payload, at most 125 bytes."""
    return _frame(_PONG, payload)


def _frame(opcode: int, message: bytes) -> bytes:
    size = len(message)
    if size < _SHORT:
        return bytes((opcode, size)) + message
    if size < _MEDIUM:
        return struct.pack("!BBH", opcode, 126, size) + message
    return struct.pack("!BBQ", opcode, 127, size) + message
