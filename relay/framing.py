"""WebSocket frames from the server's side (RFC 6455, section 5.2): unmasked, so one frame serves every recipient."""

import struct

_BINARY = 0x82
_SHORT, _MEDIUM = 126, 65_536

FRAME_BYTES = 16 * 1024 * 1024
"""The longest message that v1 allows, in both directions; a longer one ends the connection."""

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
