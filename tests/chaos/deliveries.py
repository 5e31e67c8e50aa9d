"""Comparison of what one session received of a channel with the channel's log. Pure: stays and a log in, flaws out.

A session joins and leaves, often. A stay is one join and all that was received until its end. It begins after the
position of the request (`since`), or else after the position in the reply. From there on the session must receive every
row of the log that is not its own, once and in order. Rows may be missing only after a gap that was reported, and only
if they were trimmed by then, or if the store has lost them.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence

import msgspec

from relay.model.message import START, order


class Row(msgspec.Struct, frozen=True):
    """A message that was posted: its id and its sender's path."""

    id: str
    sender: str


class Gap(msgspec.Struct, frozen=True):
    """A report to the session that rows after `after` are lost; by then, rows before `trimming` may have been gone."""

    after: str
    trimming: str


class JoinRequest(msgspec.Struct, frozen=True):
    """A join with `since`, or without it, and the state of the log before it was sent.

    The message `last_acknowledged` was in the log. Rows before `trimmed` were gone, and those in `lost` were known to
    be lost.
    """

    since: str | None
    last_acknowledged: str
    trimmed: str
    lost: frozenset[str] = frozenset()


class Stay(msgspec.Struct):
    """A join with its reply, and what followed: ids of messages, and gaps. No row from `trimming` on was gone yet."""

    request: JoinRequest
    position: str
    recovered: bool | None
    trimming: str
    steps: list[str | Gap] = []

    @property
    def begin(self) -> str:
        """The position after which the session must receive everything."""
        return self.position if self.request.since is None else self.request.since

    @property
    def end(self) -> str:
        """The last message that was handled: the next `since`."""
        return next((step for step in reversed(self.steps) if isinstance(step, str)), self.begin)


class Losses(msgspec.Struct, frozen=True):
    """The rows that a failover took from the log: ids.

    The cluster knew of those in `known`: they were acknowledged or delivered. Nobody can tell of the others.
    """

    all: frozenset[str] = frozenset()
    known: frozenset[str] = frozenset()


class _Ids:
    """Ids of messages, in order."""

    def __init__(self, ids: Sequence[str]) -> None:
        self._ids = sorted(ids, key=order)
        self._orders = [order(each) for each in self._ids]
        self._known = frozenset(self._ids)

    def __contains__(self, message_id: str) -> bool:
        return message_id in self._known

    def after(self, position: str) -> list[str]:
        return self._ids[bisect_right(self._orders, order(position)) :]

    def between(self, position: str, end: str) -> list[str]:
        """Return the ids after `position` and before `end`."""
        return self._ids[bisect_right(self._orders, order(position)) : bisect_left(self._orders, order(end))]


class _Log:
    """The rows that a session must receive, those that it must be told of, and those that it may be told of."""

    def __init__(self, rows: Sequence[Row], path: str, losses: Losses) -> None:
        self.kept = _Ids([row.id for row in rows if row.sender != path and row.id not in losses.all])
        self.lost = _Ids([*losses.all])
        self.to_tell = _Ids([row.id for row in rows if row.sender != path and row.id in losses.known])
        self.positions = frozenset({START, *(row.id for row in rows)})

    def __contains__(self, message_id: str) -> bool:
        return message_id in self.kept or message_id in self.lost

    def may_tell(self, gap: Gap, end: str | None) -> bool:
        """Tell whether something was gone, or lost, after the gap and before the next message."""
        if order(gap.after) < order(gap.trimming) or gap.after in self.lost:
            return True
        return bool(self.lost.after(gap.after) if end is None else self.lost.between(gap.after, end))


def flaws(path: str, stays: Sequence[Stay], rows: Sequence[Row], losses: Losses = Losses()) -> list[str]:  # noqa: B008
    """Return the flaws, in words, of a session at `path` that stayed to the log's end.

    `rows` is all ever posted, trimmed and lost rows included.
    """
    log = _Log(rows, path, losses)
    found: list[str] = []
    at, untold = START, False
    for number, stay in enumerate(stays):
        since = stay.request.since
        if number and since not in (None, at):
            found.append(f"stay {number}: came back with {since}, but had handled {at}")
        if stay.position not in log.positions:
            found.append(f"stay {number}: the position {stay.position} was never in the log")
        found += [f"stay {number}: {flaw}" for flaw in (*_answer(stay, log), *_walk(stay, log))]
        at = stay.end
        untold = not (stay.steps and isinstance(stay.steps[-1], Gap))
    if missing := log.kept.after(at):
        found.append(f"at the end: {_some(missing)} never received")
    if untold and stays and (lost := log.to_tell.after(at)):
        found.append(f"at the end: {_some(lost)} lost, and no gap tells so")
    return found


def _answer(stay: Stay, log: _Log) -> Iterator[str]:
    """Return the flaws of the reply to the join."""
    since, recovered, last = stay.request.since, stay.recovered, stay.request.last_acknowledged
    if order(stay.position) < order(last) and last not in log.lost:
        yield f"the position {stay.position} is older than {last}, which was posted before"
    if since is None:
        if recovered is not None:
            yield "an answer to a `since` that was not given"
        return
    if recovered is not True and not log.may_tell(Gap(since, stay.trimming), None):
        yield f"nothing behind {since} was gone, and yet it was not recovered"
    if recovered is not False and order(since) < order(stay.request.trimmed):
        yield f"what followed {since} was gone, and yet it was recovered"
    lost = [each for each in log.to_tell.after(since) if each in stay.request.lost]
    if recovered is not False and lost:
        yield f"of what followed {since}, {_some(lost)} was lost, and yet it was recovered"
    begins_with_gap = not stay.steps or (isinstance(stay.steps[0], Gap) and stay.steps[0].after == since)
    if recovered is False and order(since) < order(stay.request.trimmed) and not begins_with_gap:
        yield f"what followed {since} was lost, and no gap tells so"


def _walk(stay: Stay, log: _Log) -> Iterator[str]:
    """Return the flaws of the received messages."""
    at, gone, told = stay.begin, START, False
    for number, step in enumerate(stay.steps):
        if isinstance(step, Gap):
            following = next((each for each in stay.steps[number:] if isinstance(each, str)), None)
            if not log.may_tell(step, following):
                yield f"a gap behind {step.after}, where nothing was gone"
            if order(step.after) < order(at):
                yield f"a gap behind {step.after}, of which {at} was received"
                continue
            missing = [each for each in log.kept.between(at, step.after) if order(each) >= order(gone)]
            if step.after != at and step.after in log.kept and order(step.after) >= order(gone):
                missing.append(step.after)
            lost = [] if told else log.to_tell.between(at, step.after)
            at, gone, told = step.after, step.trimming, True
        elif order(step) <= order(at):
            yield f"{step} came again, or late, behind {at}"
            continue
        else:
            if step not in log:
                yield f"{step} was posted by nobody else"
            missing = [each for each in log.kept.between(at, step) if order(each) >= order(gone)]
            lost = [] if told else log.to_tell.between(at, step)
            at, gone, told = step, START, False
        if lost:
            yield f"{_some(lost)} lost before {at}, and no gap tells so"
        if missing:
            yield f"{_some(missing)} missing before {at}"


def _some(ids: Sequence[str]) -> str:
    return f"{len(ids)} from {ids[0]} to {ids[-1]}"
