"""A message on its way through a node: opaque bytes with a place in their channel's order."""

import msgspec

START = "0-0"
"""The position before every message."""

PAGE_BYTES = 4 * 1024 * 1024
"""The greatest size of a page of history, as it is stored and as it is sent. A page has one message at least."""


class Message(msgspec.Struct, frozen=True):
    """One message of one channel.

    `id` is its position in the channel's log: milliseconds of Redis' clock, a hyphen, and a count. `previous` is the
    id of its predecessor as the publisher saw it ('' for a row that was read from the log). `sender` is the path that
    the relay authenticated, `payload` the encoded body, both exactly as kept.
    """

    id: str
    previous: str
    sender: str
    payload: bytes
    version: int = 0
    """Of who may hear the channel: whoever delivers the message must have applied this version."""
    trace: str = ""
    """The carrier of the trace that it was posted in; '' if there is none, and for a row that was read from the log."""

    @property
    def ts_ms(self) -> int:
        return int(self.id.partition("-")[0])


def order(message_id: str) -> tuple[int, int]:
    """Return what message ids sort by; as text they do not."""
    ms, _, count = message_id.partition("-")
    return int(ms), int(count)
