"""The limit of the protocol, in both versions."""

FRAME_BYTES = 16 * 1024 * 1024
"""The greatest size of a message, in both directions. A longer one ends the connection."""
