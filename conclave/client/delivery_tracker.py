"""The account of the messages of one channel that were shown: none skipped, none twice, across reconnects. Pure.

The history is complete, and each of its rows has a position to continue from. A live message of protocol v1 has none.
So live messages are shown as they come, and the history says what was missed: after a reconnect, and over v1 from time
to time. Both bring the same messages; the tracker matches them.

- `position` is the watermark: everything up to it was shown. `received` is the last message that arrived, and the
  history is read from there after a reconnect. They differ while something in between was not shown, because the
  channel is muted or because too much was missed to show it all. Then the watermark stays, so that nothing is skipped;
  what is shown live meanwhile is read again with the rest.
- Unplaced messages were shown live without a position and are not found in the history yet. The history does not show
  them again. Until they are found the watermark stays, so a restart may repeat them. Their number is bounded: beyond it
  they are given up, and the watermark stays behind them.
- Echoes were shown from the history and may still come live: posted after the join, read before the live copy arrived.
  A live message without a position that equals an echo is either that copy or a new message with the same words.
  Nothing in it tells which; reading the history again does, because every message is in it.
- Messages that the session has sent itself do not come live, but the history has them.

Where there is no position to compare, two messages are the same if sender and body are equal: which of two equal ones
was shown makes no difference.
"""

from collections import Counter, deque
from collections.abc import Sequence

from conclave.client.marks import at_time, history_after, is_time, time_of
from conclave.protocol.body import Body
from conclave.protocol.events import Message
from conclave.protocol.requests import History, Page, Row

PAGE_ROWS = 500
"""The number of rows that are asked for at once."""
ECHO_ROWS = 10_000
"""The number of rows shown last that may still come live; older ones were posted before the join, or nearly so."""
UNPLACED_MESSAGES = 2_000
"""The number of messages without a position that are remembered until the history has them."""
OWN_MESSAGES = 200
"""The number of the session's own messages that are remembered until the history has them."""

_Key = int | str
"""Identifies a message: its position, or a hash of sender and body."""


class MissedRows:
    """The rows behind a mark that did not come live, counted page by page beside the account.

    Nothing has moved until the tracker is told what becomes of them, so a count that breaks off can be made again.
    `end` is the mark that the count has reached, `end_ms` its time; `rows` are the first `keep` of the rows.
    """

    def __init__(self, start: str, own: str, unplaced: Counter[_Key], sent: Counter[_Key], keep: int) -> None:
        self.end = start
        self.end_ms: int | None = None
        self.count = 0
        self.rows: list[Row] = []
        self.unplaced = unplaced.copy()
        self.sent = sent.copy()
        self._own = own
        self._keep = keep

    def add(self, rows: Sequence[Row]) -> None:
        """Take the history behind `end`. The session's own messages do not count as missed."""
        for row in rows:
            key = _content(row.from_, row.body)
            if _take(self.unplaced, key) or _take(self.sent, key) or row.from_ == self._own:
                continue
            self.count += 1
            if len(self.rows) < self._keep:
                self.rows.append(row)
        if rows:
            self.end, self.end_ms = rows[-1].id, rows[-1].ts


class DeliveryTracker:
    """The account of one channel, kept across reconnects."""

    def __init__(self, mark: str, *, ms: int = 0, version: int = 1, positioned: bool = True) -> None:
        """Start behind a mark; with a position, `ms` is the time of the server's clock there.

        `version` is that of the protocol whose positions these are; `positioned` tells if live messages carry theirs.
        """
        self.position = mark
        self.received = mark
        self.positioned = positioned
        self.behind = False
        """True while something after `position` was not shown."""
        self._ms = time_of(mark) if is_time(mark) else ms
        self._version = version
        self._unplaced: Counter[_Key] = Counter()
        self._sent: Counter[_Key] = Counter()
        self._echoes: Counter[_Key] = Counter()
        self._echo_order: deque[tuple[_Key, _Key]] = deque()
        self._before_start: Counter[_Key] = Counter()

    @property
    def unplaced(self) -> int:
        """The number of messages that came without a position and were not found in the history yet."""
        return self._unplaced.total()

    def is_at(self, position: str | None) -> bool:
        """Tell if nothing can be missing that was posted up to this position."""
        return position is not None and position == self.received

    # --- Connections ---

    def reconnected(self, version: int) -> str | None:
        """Note a new connection: only messages from now on come live. Return the position to continue from, if any.

        A server that has changed its version of the protocol has other positions: then the time of the last message
        that had one replaces it, and messages of the same millisecond may be shown once more.
        """
        self.forget_echoes()
        if version != self._version:
            self._version = version
            self.position = self.received = at_time(self._ms)
        return None if is_time(self.received) else self.received

    def restart(self, mark: str) -> None:
        """Continue from another mark, because the server does not know this one's positions any more."""
        self.position = self.received = mark
        self.behind = False
        self._unplaced.clear()
        self.forget_echoes()

    def forget_echoes(self) -> None:
        """Note that all live messages have arrived that were on their way when the history was read."""
        self._clear_echoes()
        self._before_start.clear()

    # --- Live messages ---

    def live(self, message: Message, *, shown: bool = True) -> bool | None:
        """Note a live message, unless it is an echo; `shown` is False in a muted channel.

        Return True for a new message, False for an echo, and None if nothing tells which: then the caller may read the
        history to its end, and asks `take_echo`.
        """
        key = message.id or _content(message.from_, message.body)
        if self._echoes[key] > 0:
            return None if message.id is None else False
        self.behind = self.behind or not shown
        if message.id is not None:
            self._reach(message.id, message.ts)
        elif not _take(self._before_start, key):
            self._unplaced[key] += 1
            if self._unplaced.total() > UNPLACED_MESSAGES:
                self._give_up()
        # It is newer than every row that was read, and messages come in order: no echo follows it.
        self._clear_echoes()
        return True

    def take_echo(self, message: Message) -> bool:
        """Take a live message for an echo, if one with its position or words is expected.

        After the history was read to its end, False means that the server delivered a message that it failed to keep.
        """
        return _take(self._echoes, message.id or _content(message.from_, message.body))

    def sent(self, own: str, body: Body) -> None:
        """Note a message that the session sent under its path `own`; the path may have changed when it is read."""
        self._sent[_content(own, body)] += 1
        if self._sent.total() > OWN_MESSAGES:
            del self._sent[next(iter(self._sent))]

    # --- The history ---

    def next_page(self, channel: str) -> History:
        """Return the request for the next page behind `received`."""
        return history_after(channel, self.received, PAGE_ROWS)

    def page(self, page: Page) -> list[Row]:
        """Take the answer to that; return the rows that are still to be shown, oldest first, and count them as shown.

        If the page says that there is more, the next one is to be read, until the end is reached.
        """
        missed = self.missed("", keep=len(page.messages))
        missed.add(page.messages)
        self.show(missed)
        if not page.more:
            self._unplaced.clear()  # shown, and yet not in the history: the server kept no row of them
        return missed.rows

    def missed(self, own: str, keep: int) -> MissedRows:
        """Begin to count behind `received`. `start`, `show` or `skip` end the count; none of them gives it up."""
        return MissedRows(self.received, own, self._unplaced, self._sent, keep)

    def start(self, missed: MissedRows) -> None:
        """Begin behind all that was counted: it was posted before the join, or comes live."""
        self._adopt(missed)
        self._before_start = Counter(_content(row.from_, row.body) for row in missed.rows)
        self._reach(missed.end, missed.end_ms)

    def show(self, missed: MissedRows) -> None:
        """Note that all missed rows are shown now."""
        self._adopt(missed)
        self._reach(missed.end, missed.end_ms)
        for row in missed.rows:
            self._expect_echo(row)

    def skip(self, missed: MissedRows, received: str | None = None) -> None:
        """Note that the missed rows are not shown; live messages come from `received` on, if that is known."""
        self._adopt(missed)
        self.behind = True
        self.received = received or missed.end

    def place(self, rows: Sequence[Row], own: str) -> None:
        """Find unplaced messages in the history behind `received`, up to the first row that has not arrived yet."""
        for row in rows:
            if not self._place(row) and row.from_ != own:
                return
            self._reach(row.id, row.ts)

    def caught_up(self, rows: Sequence[Row], *, more: bool) -> None:
        """Note that the history behind `position` was shown, up to the last of these rows."""
        for row in rows:
            self._place(row)
        if rows:
            self.position = rows[-1].id
            if not self.positioned:
                self.received = self.position
        self.behind = self.behind and more

    # --- Inside ---

    def _reach(self, position: str, ts_ms: int | None) -> None:
        self.received = position
        if not self.behind:
            self.position = position
        if ts_ms is not None:
            self._ms = ts_ms - 1

    def _adopt(self, missed: MissedRows) -> None:
        self._unplaced, self._sent = missed.unplaced, missed.sent

    def _place(self, row: Row) -> bool:
        """Tell if a row is accounted for already: it came live, or the session sent it."""
        key = _content(row.from_, row.body)
        return _take(self._unplaced, key) or _take(self._sent, key)

    def _give_up(self) -> None:
        """Forget the unplaced messages: the history shows them again from here on, and they are counted anew."""
        self._unplaced.clear()
        self.behind = True

    def _expect_echo(self, row: Row) -> None:
        keys = (_content(row.from_, row.body), row.id)
        self._echoes.update(keys)
        self._echo_order.append(keys)
        if len(self._echo_order) > ECHO_ROWS:
            for key in self._echo_order.popleft():
                _take(self._echoes, key)

    def _clear_echoes(self) -> None:
        self._echoes.clear()
        self._echo_order.clear()


def _content(sender: str, body: Body) -> int:
    return hash((sender, body))


def _take(counted: Counter[_Key], key: _Key) -> bool:
    """Count one less of `key`; False if there was none."""
    if counted[key] <= 0:
        return False
    counted[key] -= 1
    if not counted[key]:
        del counted[key]
    return True
