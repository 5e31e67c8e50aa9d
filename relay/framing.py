"""WebSocket frames from the server's side (RFC 6455, section 5.2): unmasked, so one frame serves every recipient."""

import struct

_BINARY = 0x82
_SHORT, _MEDIUM = 126, 65_536

CLOSE = b"\x88\x00"
"""A close frame without a status code."""


def binary_frame(message: bytes) -> bytes:
    """Return `message` as one final binary frame."""
    size = len(message)
    if size < _SHORT:
        return bytes((_BINARY, size)) + message
    if size < _MEDIUM:
        return struct.pack("!BBH", _BINARY, 126, size) + message
    return struct.pack("!BBQ", _BINARY, 127, size) + message
