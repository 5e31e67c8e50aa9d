"""The order of one channel on one node, pure: live messages and pages of the log in, the next messages in order out.

Every live message names its predecessor. As long as that is the message handed out last, it is next. Anything else
means that live delivery lost something: the feed then holds live messages back and asks for the log from its position
on, until the two meet. What the log no longer has is reported, never skipped silently.
"""

from collections.abc import Sequence

from relay.model.message import START, Message, order

HELD_BYTES = 1024 * 1024
"""How much live traffic is held back at most. Beyond it the held messages are dropped: the log has them."""


class Ordering:
    """Hands out every message of a channel once and in the log's order, beginning after `position`."""

    def __init__(self) -> None:
        self.position = START
        """The id of the message handed out last."""
        self._held: list[Message] | None = []
        self._held_bytes = 0
        self._behind = False
        """Whether live messages were missed since the present page may have been read: then it is not the last one."""
        self._astray: str | None = None
        """A held message that a complete page did not lead to. If the next one does not either, the log lost it."""

    @property
    def is_live(self) -> bool:
        """Whether the next live message is expected to be the next in order; if not, the log has to be read."""
        return self._held is None

    def start(self, position: str) -> None:
        """Begin after `position`. Live delivery may have begun later than that, so the log has to be read first."""
        self.position = position

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

    def suspend(self, message: Message) -> None:
        """Take a live message that must not be handed out before something else was looked at: read the log first."""
        self.doubt()
        self._hold(message)

    def doubt(self) -> None:
        """Live delivery was interrupted: read the log before anything else is handed out."""
        if self._held is None:
            self._held = []
        else:
            self._behind = True

    def page(self, rows: Sequence[Message], *, more: bool, known: bool, tip: str) -> tuple[list[Message], bool]:
        """Take a page of the log that begins after `position`.

        Returns what is next in order, and whether history was lost: the log is not known to continue from the
        position, or live messages are not in it. Check `is_live` afterwards; if it is False, the log has to be read on.
        """
        out, lost = list(rows), not known
        if out:
            self.position = out[-1].id
        elif not known:
            self.position = tip
        if self._behind and not more:
            self._behind = False
        elif not more:
            lost = self._drop_strays() or lost
            out += self._release()
            self._astray = self._held[0].id if self._held else None
        return out, lost

    def _drop_strays(self) -> bool:
        """Let go of live messages that the log does not have (a failover lost them); True if there were any."""
        stray, self._astray = self._astray, None
        if stray is None or order(stray) <= order(self.position):
            return False
        self._held = [message for message in self._held or () if order(message.id) > order(stray)]
        return True

    def _hold(self, message: Message) -> None:
        if self._held is None:
            self._held = []
        if self._held_bytes + len(message.payload) > HELD_BYTES:
            self._held.clear()
            self._held_bytes = 0
            self._behind = True
            return
        self._held.append(message)
        self._held_bytes += len(message.payload)

    def _release(self) -> list[Message]:
        held, self._held, self._held_bytes = self._held or [], None, 0
        out: list[Message] = []
        for message in held:
            out += self.live(message)
        return out
