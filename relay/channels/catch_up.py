"""How one listener gets from a position in the log to live delivery, pure: pages and live messages in, steps out.

The room hands live messages to everybody in the log's order. To a listener that catches up it hands them, too, but they
are not sent: this object keeps the last of them, and counts the others as delivered elsewhere. Meanwhile the log is
read from the listener's position on. As soon as a page reaches the point from which all live messages were kept, the
two are joined without a hole or a repeat, and the listener is live. If more came than may be kept, another page is due.
"""

from collections.abc import Sequence

import msgspec

from relay.model.message import Message, order

HELD_BYTES = 1024 * 1024
"""How much live traffic is kept for the join at most."""


_OVERHEAD_BYTES = 256
"""What a message occupies beside its body, about."""


class Lost(msgspec.Struct, frozen=True):
    """What was said after a position, and before the next message, is in the log no more."""

    after: str


class CatchUp:
    """Hands out every message after `position` once and in order, or says what is lost, until it is `done`."""

    def __init__(self, position: str, live_from: str, tip: str) -> None:
        """The room hands in every message after `live_from`; `tip` was the log's last one when the listener joined.

        A position beyond that tip is none of this log: a failover lost it. What follows the tip is due all the same.
        """
        self.position = position
        """The id of the message handed out last."""
        self.done = False
        self._floor = tip
        """What follows this and was not handed out is due, whatever the position."""
        self._live_from = live_from
        self._due = live_from
        """Where a page that is complete has to lead to: what the room had handed out when the page was asked for."""
        self._held: list[Message] | None = None
        self._held_bytes = 0

    def ask(self) -> str:
        """Return the position to read the log from; from now on live messages are kept."""
        self._due = self._live_from
        if self._held is None:
            self._held = []
        return min(self.position, self._floor, key=order)

    def live(self, message: Message) -> None:
        """Take a live message."""
        size = len(message.payload) + _OVERHEAD_BYTES
        if self._held is not None and self._held_bytes + size <= HELD_BYTES:
            self._held.append(message)
            self._held_bytes += size
            return
        self._let_go()
        self._live_from = message.id

    def page(self, rows: Sequence[Message], *, more: bool, known: bool, tip: str) -> list[Message | Lost]:
        """Take the page that was asked for last; returns what is next in order."""
        beyond = order(self.position) > order(self._floor)
        out: list[Message | Lost] = [Lost(self.position)] if beyond or not known else []
        out += rows
        if rows:
            self.position = rows[-1].id
            self._floor = max(self._floor, self.position, key=order)
        elif not known:
            self.position = tip
        elif beyond:
            self.position = self._floor
        if more:
            self._live_from = self._held[-1].id if self._held else self._live_from
            self._let_go()
            return out
        reached = order(self.position) >= order(self._live_from)
        if order(self.position) < order(self._due):
            # A complete log that does not lead to what was delivered from it: a failover lost the rest.
            if known or rows:
                out.append(Lost(self.position))
            reached = self._due == self._live_from
        if reached:
            out += self._later()
            self._let_go()
            self.done = True
        return out

    def _later(self) -> list[Message]:
        """Return the kept messages that come after the position, and move on to them."""
        later = [message for message in self._held or () if order(message.id) > order(self.position)]
        if later:
            self.position = later[-1].id
        return later

    def _let_go(self) -> None:
        self._held = None
        self._held_bytes = 0
