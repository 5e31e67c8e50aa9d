"""The way of one subscriber from a position in the log to live delivery: pages and live messages in, steps out. No I/O.

A channel delivers live messages in the order of the log. A subscriber that catches up is passed each of them, too, but
is sent the log from its own position on, a page at a time. While a page is on its way, live messages are held. If the
page leads to the point where the held messages begin, the two are joined and the subscriber is live. If more came than
may be held, another page is needed.
"""

from collections.abc import Sequence

import msgspec

from relay.channels.held_messages import HeldMessages
from relay.model.message import Message, order


class Gap(msgspec.Struct, frozen=True):
    """The messages after a position, and before the next one that is put out, are not in the log any more."""

    after: str


class CatchUp:
    """Puts out every message after `position` once and in order, or a gap where some are lost, until it is `done`."""

    def __init__(self, position: str, delivered: str, tip: str) -> None:
        """`delivered` is the message that the channel delivered last, `tip` the last one of the log, both at the join.

        A position beyond the tip is none of this log: a failover lost it. Messages after the tip are put out all the
        same.
        """
        self.position = position
        """The id of the message that was put out last."""
        self.done = False
        self._promised_after = tip
        """Messages after this one are put out, whatever the position was."""
        self._held_after = delivered
        """Every message that the channel has delivered after this one is held."""
        self._page_until = delivered
        """The message that the channel had delivered last when the page was requested. A page to the end of the log
        leads to it, unless the log has lost it."""
        self._holding = False
        self._held = HeldMessages()

    @property
    def held_bytes(self) -> int:
        """The memory that held live messages occupy."""
        return self._held.size_bytes

    def begin_page(self) -> str:
        """Return the position to read the log from. Live messages are held until `add_page`."""
        self._page_until = self._held_after
        self._holding = True
        return min(self.position, self._promised_after, key=order)

    def receive(self, message: Message) -> None:
        """Take a message that the channel delivers live."""
        if not self._holding or not self._held.add(message):
            self._held_after = message.id

    def add_page(self, rows: Sequence[Message], *, more: bool, known: bool, tip: str) -> list[Message | Gap]:
        """Take the page that was requested last. Returns what is next in order."""
        beyond_tip = order(self.position) > order(self._promised_after)
        out: list[Message | Gap] = [Gap(self.position)] if beyond_tip or not known else []
        out += rows
        if rows:
            self.position = rows[-1].id
            self._promised_after = max(self._promised_after, self.position, key=order)
        elif not known:
            self.position = tip
        elif beyond_tip:
            self.position = self._promised_after
        if more:
            self._stop_holding()
            return out
        meets_held = order(self.position) >= order(self._held_after)
        if order(self.position) < order(self._page_until):
            if known or rows:
                out.append(Gap(self.position))
            meets_held = self._page_until == self._held_after
        if meets_held:
            held = self._held.take(after=self.position)
            if held:
                self.position = held[-1].id
                out += held
            self.done = True
        return out

    def _stop_holding(self) -> None:
        """Leave to the next page what was held."""
        if self._held:
            self._held_after = self._held.last.id
        self._held.clear()
        self._holding = False
