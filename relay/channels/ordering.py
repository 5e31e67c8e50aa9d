"""The order of one channel on one node: live messages and pages of the log in, the next messages in order out. No I/O.

Every live message names its predecessor. If that is the message delivered last, the live message is next. Otherwise
live delivery lost something: live messages are held, and the log has to be read from the position on until the two
meet. Messages that the log no longer has are reported as lost, never skipped silently.
"""

from collections.abc import Sequence

from relay.channels.held_messages import HeldMessages
from relay.model.message import START, Message, order


class Ordering:
    """Puts out every message after the start position once, in the order of the log."""

    def __init__(self) -> None:
        self.position = START
        """The id of the message that was put out last."""
        self.is_live = False
        """True if the next live message can be put out. If not, the log has to be read."""
        self._held = HeldMessages()
        self._page_outdated = False
        """True if live messages were lost or dropped since the page on its way may have been read: another one is
        needed, even if this one is the end of the log."""
        self._unreached: str | None = None
        """The first held message, if a page to the end of the log did not lead to it. If the next page does not
        either, the log has lost it."""

    @property
    def held_bytes(self) -> int:
        """The memory that held live messages occupy."""
        return self._held.size_bytes

    @property
    def last_seen(self) -> str:
        """The id of the last message that was put out or is held."""
        return max(self.position, self._held.last.id, key=order) if self._held else self.position

    def start(self, position: str) -> None:
        """Begin after `position`. The log has to be read first: live delivery may have begun later than that."""
        self.position = position

    def receive(self, message: Message) -> Sequence[Message]:
        """Take a live message. Returns the messages that are next; `is_live` may have changed."""
        if self.is_live:
            if message.previous == self.position:
                self.position = message.id
                return (message,)
            if order(message.id) <= order(self.position):
                return ()  # it was read from the log already
            self.is_live = False
        self._hold(message)
        return ()

    def hold(self, message: Message) -> None:
        """Take a live message that may not be put out before a page of the log was read."""
        self.require_log()
        self._hold(message)

    def require_log(self) -> None:
        """Have the log read before anything else is put out: live messages may have been lost."""
        if self.is_live:
            self.is_live = False
        else:
            self._page_outdated = True

    def add_page(self, rows: Sequence[Message], *, more: bool, known: bool, tip: str) -> tuple[list[Message], bool]:
        """Take a page of the log that begins after `position`.

        Returns the messages that are next, and whether some are lost: the log is not known to continue from the
        position, or does not have a message that was received live. If `is_live` is False afterwards, the log has to
        be read on.
        """
        out, lost = list(rows), not known
        if out:
            self.position = out[-1].id
        elif not known:
            self.position = tip
        if more:
            return out, lost
        if self._page_outdated:
            self._page_outdated = False
            return out, lost
        lost = self._drop_unreached() or lost
        out += self._release()
        self._unreached = self._held.first.id if self._held else None
        return out, lost

    def _drop_unreached(self) -> bool:
        """Drop the live messages that the log has lost, as after a failover. True if there were any."""
        unreached, self._unreached = self._unreached, None
        if unreached is None or order(unreached) <= order(self.position):
            return False
        for message in self._held.take(after=unreached):
            self._held.add(message)
        return True

    def _hold(self, message: Message) -> None:
        if not self._held.add(message):
            self._page_outdated = True

    def _release(self) -> list[Message]:
        self.is_live = True
        return [ready for message in self._held.take(after=self.position) for ready in self.receive(message)]
