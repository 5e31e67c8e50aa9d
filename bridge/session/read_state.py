"""How far this session was shown a channel, and so what it missed. Pure.

There are two marks in the channel's order. `heard` is the last message that arrived here; a reconnect asks for what is
behind it. `position` is the watermark: everything up to it was shown, and `catch_up` continues from it. They are apart
while something in between was not shown: because the channel was muted, or because too much was missed to show it all.
Then the watermark stays, so that nothing is skipped; what is shown live meanwhile is read again with the rest.

A v1 server gives live messages no position. They are counted, and found again in the history: `settle` does so from
time to time, and until it did, a restart reports them as missed. That is the safe side, and so the account is bounded:
where too much was heard and not found again, it is given up, and the watermark stays.

What was missed is counted by a `Count`, beside the account: until it is settled whether it is shown or announced,
nothing has moved, and a count that is broken off can be made again.
"""

from collections import Counter
from collections.abc import Sequence

from conclave.protocol.body import Body
from conclave.protocol.events import Message
from conclave.protocol.requests import History, Row

UNPLACED_MESSAGES = 2_000
UNPLACED_CHARS = 4 * 1024 * 1024
"""How many messages without a position, and how much of them, are remembered until the history tells theirs."""
OWN_MESSAGES = 200
"""How many of the session's own messages are remembered until the history shows them."""

_Said = tuple[str, Body]


class Count:
    """What is behind a mark and did not arrive live, a page after the other. `end` is the mark that it has got to."""

    def __init__(self, start: str, own: str, unplaced: Counter[_Said], said: Counter[_Said], keep: int) -> None:
        """Count on copies of the account; of the rows themselves keep the first `keep`."""
        self.end = start
        self.missed = 0
        self.rows: list[Row] = []
        self.unplaced = unplaced.copy()
        self.said = said.copy()
        self._own = own
        self._keep = keep

    def add(self, rows: Sequence[Row]) -> None:
        """Take the history behind `end`. What the session said itself was not missed."""
        for row in rows:
            said = (row.from_, row.body)
            if _take(self.unplaced, said) or _take(self.said, said) or row.from_ == self._own:
                continue
            self.missed += 1
            if len(self.rows) < self._keep:
                self.rows.append(row)
        if rows:
            self.end = rows[-1].id


class ReadState:
    """The account of one channel. A mark is a position of the server, or a time (`at_time`)."""

    def __init__(self, position: str, *, placed: bool) -> None:
        """Start at a position; `placed` tells whether live messages carry theirs."""
        self.position = position
        self.heard = position
        self.placed = placed
        self.behind = False
        """Whether something after `position` was not shown."""
        self._unplaced: Counter[_Said] = Counter()
        self._unplaced_chars = 0
        self._said: Counter[_Said] = Counter()
        self._early_ids: set[str] = set()
        self._early: Counter[_Said] = Counter()
        self._known: Counter[_Said] = Counter()

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
        return _take(self._early, (message.from_, message.body))

    def live(self, message: Message, *, shown: bool) -> None:
        """Note a message that came by itself."""
        self.behind = self.behind or not shown
        said = (message.from_, message.body)
        if message.id is not None:
            self._reach(message.id)
        elif not _take(self._known, said):
            self._unplaced[said] += 1
            self._unplaced_chars += size(message.body)
            if self._unplaced.total() > UNPLACED_MESSAGES or self._unplaced_chars > UNPLACED_CHARS:
                self._give_up()

    def said(self, own: str, body: Body) -> None:
        """Note what the session said under its path `own`, which may be another one when the history is read."""
        self._said[(own, body)] += 1
        if self._said.total() > OWN_MESSAGES:
            del self._said[next(iter(self._said))]

    def count(self, own: str, keep: int) -> Count:
        """Begin to count what was missed behind `heard`. Then call `start`, `showing` or `skip`, or none of them."""
        return Count(self.heard, own, self._unplaced, self._said, keep)

    def start(self, count: Count) -> None:
        """Begin behind all that was counted: it was said before the session listened, or is on its way here."""
        self._settle_with(count)
        self._known = Counter((row.from_, row.body) for row in count.rows)
        self._reach(count.end)

    def showing(self, count: Count) -> None:
        """Note that all missed rows are shown now; those posted a moment ago may come live, too."""
        self._settle_with(count)
        self._reach(count.end)
        self._early_ids = {row.id for row in count.rows}
        self._early = Counter((row.from_, row.body) for row in count.rows)

    def skip(self, count: Count, heard: str | None = None) -> None:
        """Note that too much was missed to show it; live messages come from `heard` on, if that is known."""
        self._settle_with(count)
        self.behind = True
        self.heard = heard or count.end

    def restart(self, position: str) -> None:
        """Go on from another mark, because the server does not know this one's positions any more."""
        self.position = self.heard = position
        self.behind = False
        self._unplaced.clear()
        self._unplaced_chars = 0
        self._early_ids.clear()
        self.forget_early()

    def forget_early(self) -> None:
        """Note that whatever was on its way when the history was read has arrived."""
        self._early.clear()
        self._known.clear()

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
        """Tell whether a row is known already: it came live, or the session said it."""
        said = (row.from_, row.body)
        if _take(self._unplaced, said):
            self._unplaced_chars -= size(row.body)
            return True
        return _take(self._said, said)

    def _settle_with(self, count: Count) -> None:
        self._unplaced, self._said = count.unplaced, count.said
        self._unplaced_chars = sum(size(body) * number for (_, body), number in self._unplaced.items())

    def _give_up(self) -> None:
        """Forget what came without a position: from here on `catch_up` shows it again, and then all is known anew."""
        self._unplaced.clear()
        self._unplaced_chars = 0
        self.behind = True

    def _reach(self, position: str) -> None:
        self.heard = position
        if not self.behind:
            self.position = position


def size(body: Body) -> int:
    """Return about how many bytes a body takes."""
    return len(body.text or "") if body.sealed is None else len(body.sealed.ciphertext)


def _take(counter: Counter[_Said], said: _Said) -> bool:
    """Take one away, if there is any."""
    if counter[said] <= 0:
        return False
    counter[said] -= 1
    if not counter[said]:
        del counter[said]
    return True


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
