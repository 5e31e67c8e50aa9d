"""A message inside a node: opaque bytes with a position in the order of their channel."""

import msgspec

START = "0-0"
"""The position before every message."""

PAGE_BYTES = 4 * 1024 * 1024
"""The greatest size of a page of history, as it is stored and as it is sent. A page has one message at least."""

_OVERHEAD_BYTES = 320
"""The memory of a message beside its body, sender and trace, rounded up: the struct, its ids, and object headers."""


class Message(msgspec.Struct, frozen=True):
    """One message of one channel.

    `id` is its position in the channel's log: milliseconds of Redis' clock, a hyphen, and a count; `ts_ms` are these
    milliseconds. `previous` is the id of its predecessor at the time of the post ('' for a row that was read from the
    log). `sender` is the authenticated session path, `payload` the encoded body, both exactly as stored. Both are empty
    in a row of a later format: it has its place in the order, and reaches nobody.
    """

    id: str
    ts_ms: int
    previous: str
    sender: str
    payload: bytes
    version: int = 0
    """The membership version. A node applies it before it delivers the message."""
    trace: str = ""
    """The carrier of the trace of the post; '' if there is none, and for a row that was read from the log."""

    @property
    def is_readable(self) -> bool:
        return bool(self.sender)

    @property
    def memory_bytes(self) -> int:
        """The memory that the message occupies, overhead included; rounded up."""
        return len(self.payload) + len(self.sender) + len(self.trace) + _OVERHEAD_BYTES


def order(message_id: str) -> tuple[int, int]:
    """Return the sort key of a message id. As text, ids do not sort in the order of the log."""
    ms, _, count = message_id.partition("-")
    return int(ms), int(count)
