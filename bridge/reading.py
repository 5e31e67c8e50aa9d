"""How far this session was shown a channel, and so what it missed. Pure.

There are two marks in the channel's order. `heard` is the last message that arrived here; a reconnect asks for what is
behind it. `position` is the watermark: everything up to it was shown, and `catch_up` continues from it. They are apart
while something in between was not shown: because the channel was muted, or because too much was missed to show it all.
Then the watermark stays, so that nothing is skipped; what is shown live meanwhile is read again with the rest.

A v1 server gives live messages no position. They are counted, and found again in the history: `settle` does so from
time to time, and until it did, a restart reports them as missed. That is the safe side.
"""

from collections import Counter
from collections.abc import Sequence

from conclave.body import Body
from conclave.events import Message
from conclave.requests import History, Row

_Said = tuple[str, Body]


class Reading:
    """The account of one channel. A mark is a position of the server, or a time (`at_time`)."""

    def __init__(self, position: str, *, placed: bool) -> None:
        """Start at a position; `placed` tells whether live messages carry theirs."""
        self.position = position
        self.heard = position
        self.placed = placed
        self.behind = False
        """Whether something after `position` was not shown."""
        self._unplaced: Counter[_Said] = Counter()
        self._early_ids: set[str] = set()
        self._early: Counter[_Said] = Counter()

    @property
    def unsettled(self) -> bool:
        """Whether messages have arrived whose place in the history is not known yet."""
        return bool(self._unplaced)

    def is_repeated(self, message: Message) -> bool:
        """Tell whether a live message was shown from the history already; ask once for each, before `live`."""
        if message.id is not None:
            repeated = message.id in self._early_ids
            self._early_ids.discard(message.id)
            return repeated
        said = (message.from_, message.body)
        if self._early[said] <= 0:
            return False
        self._early[said] -= 1
        return True

    def live(self, message: Message, *, shown: bool) -> None:
        """Note a message that came by itself."""
        self.behind = self.behind or not shown
        if message.id is not None:
            self._reach(message.id)
        else:
            self._unplaced[(message.from_, message.body)] += 1

    def missed(self, rows: Sequence[Row], own: str) -> list[Row]:
        """Take the history behind `heard`, page by page; return the rows that did not arrive here live.

        Messages of the session's own path are not among them: it knows what it said. Then call `showing` or `skip`.
        """
        missed = [row for row in rows if not self._place(row) and row.from_ != own]
        if rows:
            self.heard = rows[-1].id
        return missed

    def showing(self, rows: Sequence[Row]) -> None:
        """Note that all missed rows are shown now; those posted a moment ago may come live, too."""
        self._reach(self.heard)
        self._early_ids = {row.id for row in rows}
        self._early = Counter((row.from_, row.body) for row in rows)

    def restart(self, position: str) -> None:
        """Go on from another mark, because the server does not know this one's positions any more."""
        self.position = self.heard = position
        self.behind = False
        self._unplaced.clear()
        self._early_ids.clear()
        self._early.clear()

    def forget_early(self) -> None:
        """Note that whatever was on its way when the history was read has arrived."""
        self._early.clear()

    def skip(self, heard: str | None) -> None:
        """Note that too much was missed to show it; live messages come from `heard` on, if that is known."""
        self.behind = True
        if heard is not None:
            self.heard = heard

    def settle(self, rows: Sequence[Row], own: str) -> None:
        """Find live messages in the history behind `heard`, up to the first row that has not arrived yet."""
        for row in rows:
            if not self._place(row) and row.from_ != own:
                return
            self._reach(row.id)

    def caught_up(self, rows: Sequence[Row], *, more: bool) -> None:
        """Note that the history behind `position` was shown, up to the last of these rows."""
        for row in rows:
            self._place(row)
        if rows:
            self.position = rows[-1].id
            if not self.placed:
                self.heard = self.position
        self.behind = self.behind and more

    def _place(self, row: Row) -> bool:
        said = (row.from_, row.body)
        if self._unplaced[said] <= 0:
            return False
        self._unplaced[said] -= 1
        if not self._unplaced[said]:
            del self._unplaced[said]
        return True

    def _reach(self, position: str) -> None:
        self.heard = position
        if not self.behind:
            self.position = position


def at_time(ms: int) -> str:
    """Return a mark for a time (Unix milliseconds, the server's clock) where no position is known."""
    return f"@{ms}"


def is_time(mark: str) -> bool:
    return mark.startswith("@")


def time_of(mark: str) -> int:
    """Return the time of such a mark."""
    return int(mark[1:])


def behind(channel: str, mark: str, limit: int | None = None) -> History:
    """Return the request for what follows a mark."""
    if is_time(mark):
        return History(channel, after_ts=time_of(mark), limit=limit)
    return History(channel, after=mark, limit=limit)
