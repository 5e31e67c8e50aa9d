"""The order of one channel on one node, pure: live messages and pages of the log in, the next messages in order out.

Every live message names its predecessor. As long as that is the message handed out last, it is next. Anything else
means that live delivery lost something: the feed then holds live messages back and asks for the log from its position
on, until the two meet. What the log no longer has is reported, never skipped silently.
"""

from collections.abc import Sequence

from relay.message import START, Message, order

HELD_BYTES = 1024 * 1024
"""How much live traffic is held back at most. Beyond it the held messages are dropped: the log has them."""


class Feed:
    """Hands out every message of a channel once and in the log's order, beginning after `position`."""

    def __init__(self) -> None:
        self.position = START
        """The id of the message handed out last."""
        self._held: list[Message] | None = []
        self._held_bytes = 0

    @property
    def is_live(self) -> bool:
        """Whether the next live message is expected to be the next in order; if not, the log has to be read."""
        return self._held is None

    def start(self, position: str) -> list[Message]:
        """Begin after `position`. Returns the live messages held back until now that follow it."""
        self.position = position
        return self._release()

    def live(self, message: Message) -> Sequence[Message]:
        """Take a live message. Returns what is next in order; check `is_live` afterwards."""
        if self._held is not None:
            self._hold(message)
            return ()
        if message.previous == self.position:
            self.position = message.id
            return (message,)
        if order(message.id) <= order(self.position):
            return ()  # the log was faster
        self._held = []
        self._hold(message)
        return ()

    def doubt(self) -> None:
        """Live delivery was interrupted: read the log before anything else is handed out."""
        if self._held is None:
            self._held = []

    def page(self, rows: Sequence[Message], *, more: bool, known: bool, tip: str) -> tuple[list[Message], bool]:
        """Take a page of the log that begins after `position`.

        Returns what is next in order, and whether the log was NOT known to continue from the position: then messages
        before these are lost. Check `is_live` afterwards; if it is False, the log has to be read on.
        """
        out = list(rows)
        if out:
            self.position = out[-1].id
        elif not known:
            self.position = tip
        if not more:
            out += self._release()
        return out, not known

    def _hold(self, message: Message) -> None:
        if self._held is None:
            self._held = []
        if self._held_bytes + len(message.payload) > HELD_BYTES:
            self._held.clear()
            self._held_bytes = 0
            return
        self._held.append(message)
        self._held_bytes += len(message.payload)

    def _release(self) -> list[Message]:
        held, self._held, self._held_bytes = self._held or [], None, 0
        out: list[Message] = []
        for message in held:
            out += self.live(message)
        return out
