"""The memory for messages that are longer than a body needs: one bound for all clients of a node."""

from collections.abc import Hashable

_NODE_BYTES = 64 * 1024 * 1024


class LongMessages:
    """The long messages of a node's clients that have not arrived completely.

    The protocol permits 16 MiB, which a client could claim on each of its connections by the header of a frame.
    """

    def __init__(self, usual: int) -> None:
        """`usual` is the size up to which a message is not long, in bytes."""
        self.usual = usual
        self._claims: dict[Hashable, int] = {}

    def claim(self, client: Hashable, size: int) -> bool:
        """Let a client send a long message of `size` bytes, unless the memory of the node is claimed by others."""
        others = sum(self._claims.values()) - self._claims.get(client, 0)
        if others + size > _NODE_BYTES:
            return False
        self._claims[client] = size
        return True

    def release(self, client: Hashable) -> None:
        """End a client's claim: its message has arrived, or its connection has ended."""
        self._claims.pop(client, None)
