"""Live messages that are held until the log has been read up to the point where they begin. No I/O."""

from relay.model.message import Message, order

HELD_BYTES = 1024 * 1024
"""The most memory that one buffer of held messages occupies."""


class HeldMessages:
    """A bounded buffer of the latest live messages of a channel.

    What does not fit is dropped together with everything before it: the log has it. So the buffer never has a hole.
    """

    __slots__ = ("_messages", "size_bytes")

    def __init__(self) -> None:
        self._messages: list[Message] = []
        self.size_bytes = 0
        """The memory that the held messages occupy, bodies and overhead."""

    def __bool__(self) -> bool:
        return bool(self._messages)

    @property
    def first(self) -> Message:
        return self._messages[0]

    @property
    def last(self) -> Message:
        return self._messages[-1]

    def add(self, message: Message) -> bool:
        """Hold a message. False if it does not fit: then nothing is held any more, and it is not held either."""
        size = message.memory_bytes
        if self.size_bytes + size > HELD_BYTES:
            self.clear()
            return False
        self._messages.append(message)
        self.size_bytes += size
        return True

    def take(self, *, after: str) -> list[Message]:
        """Return the messages that follow `after` in the log, and hold none any more."""
        messages = self._messages
        self.clear()
        return [message for message in messages if order(message.id) > order(after)]

    def clear(self) -> None:
        self._messages = []
        self.size_bytes = 0
