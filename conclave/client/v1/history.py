"""Exact positions in a history that is read by the millisecond.

A v1 server gives out what is newer than a millisecond, a page of it, and a row names only its time. So a position is
`ms:n` here: the row's millisecond, and its number among that millisecond's rows, from 1 on. Reading on from there asks
for what is newer than the millisecond before, which brings that millisecond from its start, and drops its first n rows.

What the frames can tell, and what they cannot:

- Rows may still join a millisecond that was read. They count on from the rows before them.
- The order within a millisecond may differ from read to read: the original keeps none. So the rows of the newest
  millisecond, to which more may come, are numbered as this connection first saw them, and known again by sender and
  body (two that are equal are the same here). All others, and on a new connection all, are numbered in the page's
  order. A row that the original sorts into a millisecond between the last read of one connection and the first one of
  the next can thus be taken for one that was read; so can a row of a millisecond that has lost its first rows to
  trimming meanwhile.
- A page may be cut by its size, or lack rows that the server could not read. So a short page is no end, not even one
  that brings nothing but known rows: the end is where nothing is newer than the position's millisecond. If there is
  something, the millisecond is over and is looked at once more, because rows may have joined it in between; what a
  server does not give out even then, it never will, and reading goes on behind it.
- There is no reading backwards: neither what is before a position, nor the newest rows, which a request without a
  position asks for. That is refused; all there is, from the oldest row on, is behind time 0.
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
    """The numbers of rows within their milliseconds, for one connection."""

    def __init__(self) -> None:
        self._newest: dict[str, tuple[int, list[int]]] = {}
        """By channel the newest millisecond that was read, and what its rows are, in the order of their numbers."""

    def number(self, channel: str, rows: Sequence[frames.HistoryMessage]) -> list[_Numbered]:
        """Number the rows of a page that begins with the start of a millisecond; within each, they come in order."""
        newest, known = self._newest.get(channel, (None, []))
        numbered: list[_Numbered] = []
        for ms, group in groupby(rows, key=lambda row: row.ts_ms):
            keys = known if ms == newest else []
            numbered += sorted(_number(group, keys), key=lambda pair: pair[0])
            if newest is None or ms >= newest:
                self._newest[channel] = (ms, keys)
        return numbered


def _number(rows: Iterable[frames.HistoryMessage], known: list[int]) -> Iterator[_Numbered]:
    """Number the rows of one millisecond, of which those in `known` have numbers; the others are added to it."""
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
    """How much is known about the position's millisecond."""

    FIRST = "it may be complete or not"
    BEHIND = "nothing new was in it: is there anything behind it?"
    LAST = "there is, so it is complete now, and is read a last time"


class HistoryRead:
    """One read of a history: the frames to send, one after the other, and the page that comes of them."""

    reply = frames.History

    def __init__(self, request: History, numbering: Numbering) -> None:
        """Begin to read.

        Raises:
            Refusal: if v1 cannot answer that.
        """
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
        """Return what to ask now."""
        whole = self._read == 0 or self._step is _Step.BEHIND
        return frames.ReadSince(self._channel, self._ms if whole else self._ms - 1)

    def receive(self, reply: frames.History) -> Page | None:
        """Take the answer; None means that `frame` has to be asked again."""
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
        """Return the rows behind the position."""
        numbered = self._numbering.number(self._channel, rows)
        return [(number, row) for number, row in numbered if row.ts_ms != self._ms or number > self._read]

    def _page(self, fresh: list[_Numbered]) -> Page:
        """Return rows that were not read yet, up to the limit. There may be more unless there are none."""
        rows = tuple(
            Row(f"{row.ts_ms}:{number}", row.ts_ms, str(row.from_), body_of(row.payload))
            for number, row in fresh[: self._limit]
        )
        return Page(rows, more=bool(rows))


def _start(request: History) -> tuple[int, int]:
    """Return a millisecond, and how many of its rows were read, 0 standing for all of them. Raises: Refusal."""
    if request.after is None:
        return request.after_ts or 0, 0
    parts = _POSITION.fullmatch(request.after)
    if parts is None:
        raise Refusal(Code.MALFORMED, f"`{request.after}` is no position in the history of this server")
    return int(parts[1]), int(parts[2])
