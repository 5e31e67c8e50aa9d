"""Which messages of a channel have been shown: none twice, none left out, whatever breaks in between.

The history is complete, and each of its rows has a position to read on from. A live message of protocol v1 has none. So
live messages are shown as they come, and from time to time, above all after a reconnect, the history behind the last
known position says what was missed. Both speak of the same messages, and the ledger counts which were seen where:

- the position: everything up to it is settled. It is that of the newest row read; a live message that carries its own
  is settled by itself, and moves it.
- `ahead`: shown live without a position, and not met in the history yet. Such a row is not shown again when the history
  brings it.
- echoes: shown from the history, and perhaps still to come live: posted after the join, read before the live copy
  arrived. A live message without a position that equals one of them may be that copy or a new message with the same
  words. Nothing in it can tell, so it is not guessed: the history is read again, and settles it, because every message
  is in it.

Where there is no position to compare, two messages are the same if sender and body are: which of two equal ones was
shown makes no difference.

Pure: pages and messages in, decisions out.
"""

from collections import Counter, deque

from conclave.protocol.events import Message
from conclave.protocol.requests import History, Page, Row

PAGE_ROWS = 500
"""How many rows are asked for at once."""

ECHO_ROWS = 10_000
"""How many of the rows shown last may still come live; older ones were posted before the join, or nearly so."""

_Key = int | str
"""What a message is known by: its position, or what it says."""


class DeliveryTracker:
    """The account of one channel, kept across reconnects."""

    def __init__(self, since_ms: int, position: str | None = None, version: int = 1) -> None:
        """Start at a position, or else at a time by the server's clock: everything later is to be accounted for.

        `version` is that of the protocol whose positions these are.
        """
        self._since_ms = since_ms
        self._position = position
        self._version = version
        self._ahead: Counter[_Key] = Counter()
        self._echoes: Counter[_Key] = Counter()
        self._echo_order: deque[tuple[_Key, _Key]] = deque()

    @property
    def ahead(self) -> int:
        """How many messages were shown since the history was last read, without their positions."""
        return self._ahead.total()

    def is_at(self, position: str | None) -> bool:
        """Tell whether nothing can be missing that was posted up to this position."""
        return position is not None and position == self._position

    def joining(self, version: int) -> str | None:
        """Note a new connection: only messages from now on come live. Return the position to go on from, if any.

        A server that has changed its version of the protocol has other positions: then the time of the last message
        that had one stands in for it, and what shares its millisecond may be shown once more.
        """
        self._forget_echoes()
        if version != self._version:
            self._version, self._position = version, None
        return self._position

    def following(self, channel: str) -> History:
        """Return the request for the next page."""
        if self._position is None:
            return History(channel, after_ts=self._since_ms, limit=PAGE_ROWS)
        return History(channel, after=self._position, limit=PAGE_ROWS)

    def page(self, page: Page) -> list[Row]:
        """Take the answer to that; return the rows that are still to be shown, oldest first.

        Where the page says so there is more: ask again, until the end is reached.
        """
        rows = [row for row in page.messages if not self._shown_live(row)]
        if page.messages:
            self._reach(page.messages[-1].id, page.messages[-1].ts)
        if not page.more:
            self._ahead.clear()  # shown, and yet not in the history: the server kept no row of it
        return rows

    def live(self, message: Message) -> bool | None:
        """Tell whether to show a live message, or None if that is not known.

        Then read the history to its end, and ask `settle`.
        """
        key = message.id or _words(message)
        if self._echoes[key] > 0:
            return None if message.id is None else False
        if message.id is None:
            self._ahead[key] += 1
        else:
            self._reach(message.id, message.ts)
        # It is newer than every row read so far, and messages come in order: nothing of those will come live any more.
        self._forget_echoes()
        return True

    def settle(self, message: Message) -> bool:
        """Tell whether to show a live message although the history was read to its end since it arrived.

        Never, unless the server delivered what it failed to keep: all else was shown from there.
        """
        return not _take(self._echoes, message.id or _words(message))

    def _reach(self, position: str, ts_ms: int | None) -> None:
        self._position = position
        if ts_ms is not None:
            self._since_ms = ts_ms - 1

    def _shown_live(self, row: Row) -> bool:
        words = _words(row)
        if _take(self._ahead, words):
            return True
        self._echoes.update((words, row.id))
        self._echo_order.append((words, row.id))
        if len(self._echo_order) > ECHO_ROWS:
            for key in self._echo_order.popleft():
                _take(self._echoes, key)
        return False

    def _forget_echoes(self) -> None:
        self._echoes.clear()
        self._echo_order.clear()


def _words(message: Message | Row) -> int:
    return hash((message.from_, message.body))


def _take(counted: Counter[_Key], key: _Key) -> bool:
    """Count one less of `key`; False if there was none."""
    if counted[key] <= 0:
        return False
    counted[key] -= 1
    if not counted[key]:
        del counted[key]
    return True
