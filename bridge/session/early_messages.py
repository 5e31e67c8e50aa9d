"""Messages that came before it was known what to do with them. Pure.

A session is in a channel when the server says so, and the first messages may come before that; they wait for the rest
of the way in. A v1 server does not say that a channel was renamed: its messages just come under another name, and wait
until the server was asked about the old one.
"""

from bridge.session.read_state import size
from conclave.protocol.events import Message

KEPT_MESSAGES = 500
KEPT_CHARS = 4 * 1024 * 1024
"""How many messages of one server wait, and how much of them; what comes beyond that has to be read in the history."""


class EarlyMessages:
    """What waits at one server, by channel and in its order."""

    def __init__(self) -> None:
        self._messages: dict[str, list[Message]] = {}
        self._count = 0
        self._chars = 0
        self._overflowed = False

    @property
    def channels(self) -> list[str]:
        return list(self._messages)

    def keep(self, message: Message) -> None:
        """Have a message wait, if there is room for it."""
        chars = size(message.body)
        if self._count >= KEPT_MESSAGES or self._chars + chars > KEPT_CHARS:
            self._overflowed = True
            return
        self._messages.setdefault(message.channel, []).append(message)
        self._count += 1
        self._chars += chars

    def take(self, channel: str) -> tuple[list[Message], bool]:
        """Remove and return what waits of a channel; False if some of it may be missing."""
        messages = self._messages.pop(channel, [])
        complete = not self._overflowed
        self._count -= len(messages)
        self._chars -= sum(size(message.body) for message in messages)
        self._overflowed = self._overflowed and bool(self._messages)
        return messages, complete

    def clear(self) -> None:
        self._messages.clear()
        self._count = self._chars = 0
        self._overflowed = False
