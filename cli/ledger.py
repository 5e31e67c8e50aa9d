"""Which messages of a channel have been shown: none twice, none left out, whatever breaks in between.

A live message carries no id and no time; a row of the history carries the server's time, and the history is complete.
So live messages are shown as they come, and from time to time, above all after a reconnect, the history since the last
known position says what was missed. Both speak of the same messages, and the ledger counts which were seen where:

- `position`: everything up to it is settled. It is the time of the newest row read, with the rows of that very
  millisecond, because asking for what is newer than a millisecond would skip the rest of it.
- `ahead`: shown live, and not met in the history yet. Such a row is not shown again when the history brings it.
- `echoes`: shown from the history, and perhaps still to come live: posted after the join, read before the live copy
  arrived. A live message that equals one of them may be that copy or a new message with the same words. Nothing in it
  can tell, so it is not guessed: the history is read again, and settles it, because every message is in it.

Two messages are the same here if sender and body are: which of two equal ones was shown makes no difference.

Pure: rows and messages in, decisions out.
"""

import enum
from collections import Counter, deque
from collections.abc import Sequence

from conclave.model import SessionPath
from conclave.v1.frames import ChannelMsg, HistoryMessage

PAGE_ROWS = 500
"""The most rows that a server of the original kind puts on one page."""

ECHO_ROWS = 10_000
"""How many of the rows shown last may still come live; older ones were posted before the join, or nearly so."""


class _Step(enum.Enum):
    """How the next page is asked for. Rows may still join the newest millisecond until a later one has begun."""

    AGAIN = "the newest millisecond and what is behind it"
    PROBE = "is there anything behind it? Its rows are not taken yet: some of that millisecond may have been missed"
    LAST = "the newest millisecond, which is complete by now, a last time"
    BEHIND = "what is behind it"


class Ledger:
    """The account of one channel, kept across reconnects."""

    def __init__(self, since_ms: int) -> None:
        """Start at a position: everything newer than `since_ms` by the server's clock is to be accounted for."""
        self._newest_ms = since_ms
        self._at_newest: Counter[int] = Counter()
        self._step = _Step.AGAIN
        self._ahead: Counter[int] = Counter()
        self._echoes: Counter[int] = Counter()
        self._echo_order: deque[int] = deque()

    @property
    def ahead(self) -> int:
        """How many messages were shown since the history was last read."""
        return self._ahead.total()

    @property
    def read_from(self) -> int:
        """The time that the next page must be newer than."""
        if self._at_newest and self._step in {_Step.AGAIN, _Step.LAST}:
            return self._newest_ms - 1
        return self._newest_ms

    def joined(self) -> None:
        """Note a new connection: only messages from now on come live."""
        self._step = _Step.AGAIN
        self._forget_echoes()

    def page(self, rows: Sequence[HistoryMessage]) -> list[HistoryMessage] | None:
        """Take a page read with `read_from`; return its rows that are still to be shown, oldest first.

        None means that the end is reached. Otherwise ask again: a short page, even one without news, is no end,
        because servers limit pages by their size, too. The end is when nothing is newer than the newest row.
        """
        if not rows and self.read_from == self._newest_ms:
            self._step = _Step.AGAIN
            self._ahead.clear()  # shown, and yet not in the history: the server kept no row of it
            return None
        if self._step is _Step.PROBE:
            self._step = _Step.LAST
            return []
        newest_ms = self._newest_ms
        fresh = self._unsettled(rows)
        if self._newest_ms != newest_ms or self._step is _Step.BEHIND:
            self._step = _Step.AGAIN
        elif self._step is _Step.LAST:
            self._step = _Step.BEHIND
        elif not fresh:
            self._step = _Step.PROBE
        return [row for row in fresh if not self._shown_live(row)]

    def live(self, message: ChannelMsg) -> bool:
        """Tell whether to show a live message now. If not, read the history to its end, then call `settle`."""
        key = _key(message.from_, message)
        if self._echoes[key] > 0:
            return False
        self._ahead[key] += 1
        # It is newer than every row read so far, and messages come in order: nothing of those will come live any more.
        self._forget_echoes()
        return True

    def settle(self, message: ChannelMsg) -> bool:
        """Tell whether a live message is in the history that was read since it arrived, and so was shown.

        It always is, unless the server delivered what it failed to keep: then show it after all.
        """
        key = _key(message.from_, message)
        shown = self._echoes[key] > 0
        if shown:
            self._echoes[key] -= 1
        return shown

    def _unsettled(self, rows: Sequence[HistoryMessage]) -> list[HistoryMessage]:
        """Move the position to the last row, and return the rows that were behind it."""
        settled = self._at_newest.copy()
        fresh = []
        for row in rows:
            key = _key(row.from_, row)
            if row.ts_ms == self._newest_ms and settled[key] > 0:
                settled[key] -= 1
            else:
                fresh.append((key, row))
        for key, row in fresh:
            if row.ts_ms != self._newest_ms:
                self._newest_ms = row.ts_ms
                self._at_newest.clear()
            self._at_newest[key] += 1
        return [row for _, row in fresh]

    def _shown_live(self, row: HistoryMessage) -> bool:
        key = _key(row.from_, row)
        if self._ahead[key] > 0:
            self._ahead[key] -= 1
            return True
        self._echoes[key] += 1
        self._echo_order.append(key)
        if len(self._echo_order) > ECHO_ROWS and self._echoes[oldest := self._echo_order.popleft()] > 0:
            self._echoes[oldest] -= 1
        return False

    def _forget_echoes(self) -> None:
        self._echoes.clear()
        self._echo_order.clear()


def _key(sender: SessionPath, message: ChannelMsg | HistoryMessage) -> int:
    return hash((sender, message.payload))
