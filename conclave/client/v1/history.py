"""Exact positions in a history that v1 reads by the millisecond.

A v1 server returns a page of the rows after a millisecond, and a row has only a time. So a position is `ms:n` here: the
row's millisecond, and its number among the rows of that millisecond, from 1 on. To read on from there, the rows after
the millisecond before are requested, and the first n of the position's millisecond are dropped.

What the frames allow, and what they do not:

- Rows may be added to a millisecond that was read. Their numbers follow those of the rows before them.
- The order within a millisecond may differ from read to read: the original has none. So the rows of the newest
  millisecond, to which more may be added, are numbered as this connection first saw them, and recognised by sender and
  body (two equal ones count as the same). All others, and on a new connection all, are numbered in the page's order. A
  row that the original sorts into a millisecond between the last read of one connection and the first one of the next
  can thus be taken for one that was read; so can a row of a millisecond that has lost its first rows to trimming.
- A page may be cut by its size, or lack rows that the server could not read. So a short page is not the end, not even
  one with known rows only: the end is where no row is after the position's millisecond. If there is one, the
  millisecond is complete and is read once more, because rows may have been added in between. Rows that the server does
  not return even then never come, and reading goes on behind it.
- Reading backwards is not possible: neither the rows before a position, nor the newest ones, which a request without a
  position asks for. Such a request is refused. All rows, from the oldest on, are after time 0.
"""

import enum
import re
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

from conclave.errors import Code, Refusal
from conclave.protocol.requests import History, Page, Row
from conclave.protocol.v1 import frames
from conclave.protocol.v1.bodies import body_of

_LIMITS = range(1, 501)

_POSITION = re.compile(r"(-?\d{1,18}):([1-9]\d{0,8})", re.ASCII)

_Numbered = tuple[int, frames.HistoryMessage]
"""A row and its number within its millisecond."""


class Numbering:
    """The numbers of rows within their millisecond, for one connection."""

    def __init__(self) -> None:
        self._newest: dict[str, tuple[int, list[int]]] = {}
        """By channel: the newest millisecond that was read, and the keys of its rows in the order of their numbers."""

    def number(self, channel: str, rows: Sequence[frames.HistoryMessage]) -> list[_Numbered]:
        """Number the rows of a page that begins at the start of a millisecond, and sort each millisecond by number."""
        newest, known = self._newest.get(channel, (None, []))
        numbered: list[_Numbered] = []
        for ms, group in groupby(rows, key=lambda row: row.ts_ms):
            keys = known if ms == newest else []
            numbered += sorted(_number(group, keys), key=lambda pair: pair[0])
            if newest is None or ms >= newest:
                self._newest[channel] = (ms, keys)
        return numbered


def _number(rows: Iterable[frames.HistoryMessage], known: list[int]) -> Iterator[_Numbered]:
    """Number the rows of one millisecond. Rows in `known` have numbers; the others are added to it."""
    free: defaultdict[int, deque[int]] = defaultdict(deque)
    for number, key in enumerate(known, 1):
        free[key].append(number)
    for row in rows:
        key = hash((row.from_, row.payload))
        if free[key]:
            yield free[key].popleft(), row
        else:
            known.append(key)
            yield len(known), row


class _Step(enum.Enum):
    """The knowledge about the position's millisecond."""

    FIRST = "it may be complete or not"
    BEHIND = "nothing new was in it: is there anything behind it?"
    LAST = "there is, so it is complete now, and is read a last time"


class HistoryRead:
    """One History request: the frames to send, one after the other, and the page that results."""

    reply = frames.History

    def __init__(self, request: History, numbering: Numbering) -> None:
        """Raises: Refusal, for a request that v1 cannot answer."""
        if request.before is not None or (request.after is None and request.after_ts is None):
            raise Refusal(
                Code.MALFORMED, "this server cannot read its history backwards: it needs `after` or `after_ts`"
            )
        if request.limit is not None and request.limit not in _LIMITS:
            raise Refusal(Code.MALFORMED, f"`limit` must be {_LIMITS.start} to {_LIMITS.stop - 1}")
        self._channel = request.channel
        self._limit = request.limit
        self._ms, self._read = _start(request)
        self._numbering = numbering
        self._step = _Step.FIRST
        self._behind: Sequence[frames.HistoryMessage] = ()

    def frame(self) -> frames.ReadSince:
        """Return the next frame to send."""
        whole = self._read == 0 or self._step is _Step.BEHIND
        return frames.ReadSince(self._channel, self._ms if whole else self._ms - 1)

    def receive(self, reply: frames.History) -> Page | None:
        """Take the reply. Returns the page, or None if `frame` has another frame to send first."""
        if self._step is _Step.BEHIND and reply.messages:
            self._step, self._behind = _Step.LAST, reply.messages
            return None
        fresh = self._fresh(reply.messages)
        if fresh or not reply.messages:
            return self._page(fresh)
        if self._step is _Step.FIRST:
            self._step = _Step.BEHIND
            return None
        return self._page(self._fresh(self._behind))

    def _fresh(self, rows: Sequence[frames.HistoryMessage]) -> list[_Numbered]:
        """Return the rows after the position."""
        numbered = self._numbering.number(self._channel, rows)
        return [(number, row) for number, row in numbered if row.ts_ms != self._ms or number > self._read]

    def _page(self, fresh: list[_Numbered]) -> Page:
        """Return the page of new rows, up to the limit. There may be more unless it is empty."""
        rows = tuple(
            Row(f"{row.ts_ms}:{number}", row.ts_ms, str(row.from_), body_of(row.payload))
            for number, row in fresh[: self._limit]
        )
        return Page(rows, more=bool(rows))


def _start(request: History) -> tuple[int, int]:
    """Return a millisecond, and how many of its rows were read; 0 stands for all of them. Raises: Refusal."""
    if request.after is None:
        return request.after_ts or 0, 0
    parts = _POSITION.fullmatch(request.after)
    if parts is None:
        raise Refusal(Code.MALFORMED, f"`{request.after}` is no position in the history of this server")
    return int(parts[1]), int(parts[2])
