"""The limits of the protocol, in both versions."""

FRAME_BYTES = 16 * 1024 * 1024
"""The greatest size of a message, in both directions. A longer one ends the connection."""

_ESCAPED = 6
"""The most bytes that JSON needs for one byte of text."""
_BESIDE_BODY_BYTES = 64 * 1024


def usual_message(body_bytes: int) -> int:
    """Return the size of a client's message that a body of `body_bytes` never exceeds."""
    return min(FRAME_BYTES, _ESCAPED * body_bytes + _BESIDE_BODY_BYTES)
