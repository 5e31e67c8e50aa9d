"""Messages that arrive before it is known which joined channel they belong to. Pure.

The first messages of a channel may arrive before the join is answered, and wait until what was missed is shown. A v1
server does not announce that a channel was renamed: its messages come under another name, and wait until the server was
asked about the old one.
"""

from conclave.protocol.body import Body
from conclave.protocol.events import Message

KEPT_MESSAGES = 500
KEPT_CHARS = 4 * 1024 * 1024
"""The number and the total length of the messages of one server that may wait; the history has the others."""


class EarlyMessages:
    """The waiting messages of one server, by channel and in their order."""

    def __init__(self) -> None:
        self._messages: dict[str, list[Message]] = {}
        self._count = 0
        self._chars = 0
        self._overflowed = False

    @property
    def channels(self) -> list[str]:
        return list(self._messages)

    def keep(self, message: Message) -> None:
        """Keep a message, if there is room for it."""
        chars = _size(message.body)
        if self._count >= KEPT_MESSAGES or self._chars + chars > KEPT_CHARS:
            self._overflowed = True
            return
        self._messages.setdefault(message.channel, []).append(message)
        self._count += 1
        self._chars += chars

    def take(self, channel: str) -> tuple[list[Message], bool]:
        """Remove and return the messages of a channel; False with them if some may be missing."""
        messages = self._messages.pop(channel, [])
        complete = not self._overflowed
        self._count -= len(messages)
        self._chars -= sum(_size(message.body) for message in messages)
        self._overflowed = self._overflowed and bool(self._messages)
        return messages, complete

    def clear(self) -> None:
        self._messages.clear()
        self._count = self._chars = 0
        self._overflowed = False


def _size(body: Body) -> int:
    return len(body.text or "") if body.sealed is None else len(body.sealed.ciphertext)
