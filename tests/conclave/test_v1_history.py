"""Exact positions on a server that knows milliseconds only."""

import random
from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conclave.client.v1.exchange import V1Exchange
from conclave.model import Plain, SessionPath
from conclave.protocol.requests import History, Page, Row
from conclave.protocol.v1 import frames
from tests.support.v1_answers import answered
from tests.support.v1_forms import BOB, ME

Read = Callable[[int], list[frames.HistoryMessage]]


def row(ts_ms: int, body: str, sender: SessionPath = BOB) -> frames.HistoryMessage:
    return frames.HistoryMessage(sender, ts_ms, Plain(body))


def pages_of(rows: list[frames.HistoryMessage], size: int) -> Read:
    """A server that gives out `size` rows at a time, as the original does with 500."""
    return lambda since_ms: [entry for entry in rows if entry.ts_ms > since_ms][:size]


class Reader:
    """Asks one server, by one connection until it `reconnect`s."""

    def __init__(self, read: Read) -> None:
        self._read = read
        self.asked: list[int] = []
        self.reconnect()

    def reconnect(self) -> None:
        self._exchange: V1Exchange[None] = V1Exchange(ME)

    def page(self, request: History) -> Page:
        page = answered(self._exchange, request, self._serve)
        assert isinstance(page, Page)
        return page

    def _serve(self, frame: frames.Frame) -> frames.Frame:
        assert isinstance(frame, frames.ReadSince)
        self.asked.append(frame.since_ms)
        return frames.History(frame.channel, tuple(self._read(frame.since_ms)))

    def on(self, position: str | None, limit: int | None = None) -> list[Row]:
        """Read on from a position to the end."""
        rows: list[Row] = []
        for _ in range(2000):
            page = self.page(History("ops", after=position, after_ts=0 if position is None else None, limit=limit))
            if not page.more:
                assert page.messages == ()
                return rows
            rows += page.messages
            position = rows[-1].id
        raise AssertionError("reading does not come to an end")


def bodies(rows: list[Row] | tuple[Row, ...]) -> list[str | None]:
    return [entry.body.text for entry in rows]


# --- Where a page begins and ends ---


def test_a_position_is_a_row_within_its_millisecond() -> None:
    """For any rows in the millisecond, exactly those after the row follow."""
    reader = Reader(pages_of([row(4, "a"), row(5, "b"), row(5, "c"), row(5, "d"), row(6, "e")], 500))
    page = reader.page(History("ops", after_ts=0))
    assert [entry.id for entry in page.messages] == ["4:1", "5:1", "5:2", "5:3", "6:1"]
    assert [entry.ts for entry in page.messages] == [4, 5, 5, 5, 6]
    for number, entry in enumerate(page.messages):
        assert bodies(reader.on(entry.id)) == ["a", "b", "c", "d", "e"][number + 1 :]


def test_a_time_is_behind_all_of_its_millisecond() -> None:
    """A time from a clock; the rows are numbered as from any other start."""
    reader = Reader(pages_of([row(4, "a"), row(5, "b"), row(6, "c"), row(6, "d")], 500))
    assert [entry.id for entry in reader.page(History("ops", after_ts=5)).messages] == ["6:1", "6:2"]
    assert reader.asked == [5]


def test_a_limit_cuts_the_page_and_reading_goes_on_there() -> None:
    """Also within a millisecond."""
    rows = [row(5, str(number)) for number in range(5)]
    reader = Reader(pages_of(rows, 500))
    page = reader.page(History("ops", after_ts=0, limit=2))
    assert (bodies(page.messages), page.more) == (["0", "1"], True)
    assert bodies(reader.on(page.messages[-1].id, limit=2)) == ["2", "3", "4"]


def test_a_short_page_is_no_end() -> None:
    """Servers limit pages by their size, too; only an empty one is the end."""
    reader = Reader(pages_of([row(5, "a"), row(6, "b")], 1))
    assert reader.page(History("ops", after_ts=0)).more
    assert bodies(reader.on(None)) == ["a", "b"]


def test_the_end_is_confirmed_behind_the_last_millisecond() -> None:
    """A page of known rows may have been cut before it came to anything new."""
    reader = Reader(pages_of([row(5, "a")], 500))
    assert reader.page(History("ops", after="5:1")) == Page((), more=False)
    assert reader.asked == [4, 5]


def test_a_millisecond_that_was_trimmed_away_is_no_obstacle() -> None:
    """A reader after a long absence continues with the rows that are left."""
    assert bodies(Reader(pages_of([row(9, "a"), row(9, "b")], 500)).on("5:3")) == ["a", "b"]
    assert Reader(pages_of([], 500)).on("5:3") == []


@pytest.mark.parametrize("beyond", [0, 1, 100])
def test_a_millisecond_with_more_rows_than_a_page_does_not_stop_the_reader(beyond: int) -> None:
    """The original cannot return the rest of it; later rows must come, and the reading must end."""
    rows = [row(10, str(number)) for number in range(500 + beyond)] + [row(11, "after")]
    assert bodies(Reader(pages_of(rows, 500)).on(None)) == [*map(str, range(500)), "after"]


def test_rows_that_join_a_millisecond_while_its_end_is_looked_for_are_not_passed_over() -> None:
    """Later rows must not be returned first: that millisecond is never read again."""
    rows = [row(5, "a")]

    def read(since_ms: int) -> list[frames.HistoryMessage]:
        if since_ms == 5:
            rows[1:] = [row(5, "late"), row(6, "b")]
        return pages_of(rows, 500)(since_ms)

    assert bodies(Reader(read).on("5:1")) == ["late", "b"]


def test_a_row_that_the_server_sorts_before_known_ones_is_not_taken_for_one_of_them() -> None:
    """The original keeps no order within a millisecond: a row is known by what it is, not by where it stands."""
    rows = [row(5, "b"), row(5, "b")]
    reader = Reader(pages_of(rows, 500))
    position = reader.page(History("ops", after_ts=0)).messages[-1].id
    rows[:] = [row(5, "a"), row(5, "b"), row(5, "b"), row(5, "b")]
    page = reader.page(History("ops", after=position))
    assert [(entry.id, entry.body.text) for entry in page.messages] == [("5:3", "a"), ("5:4", "b")]
    reader.reconnect()
    assert reader.on("5:4") == []


def test_channels_are_numbered_apart() -> None:
    """Their milliseconds have nothing to do with each other."""
    reader = Reader(pages_of([row(5, "a"), row(5, "b")], 500))
    reader.page(History("dev", after_ts=0))
    page = reader.page(History("ops", after_ts=0))
    assert [entry.id for entry in page.messages] == ["5:1", "5:2"]


# --- Whatever happens in between ---

TIMES = st.lists(st.sampled_from([0, 0, 0, 1, 2]), max_size=40)


class Server:
    """A history that grows while it is read; its rows come in chunks, in an order that may change within a ms."""

    def __init__(self, steps: list[int], seed: int, size: int, *, ordered: bool) -> None:
        self.random = random.Random(seed)  # noqa: S311 - a simulation
        self.ordered = ordered
        self.size = size
        self.rows: list[frames.HistoryMessage] = []
        self.now = 5
        self.steps = steps

    def post(self) -> None:
        self.now += self.steps.pop()
        self.rows.append(row(self.now, self.random.choice(["ok", "ok", "no"])))

    def read(self, since_ms: int) -> list[frames.HistoryMessage]:
        while self.steps and self.random.random() < 0.6:
            self.post()
        newer = [entry for entry in self.rows if entry.ts_ms > since_ms]
        if not self.ordered:
            self.random.shuffle(newer)
            newer.sort(key=lambda entry: entry.ts_ms)
        # A page ends with a whole millisecond, as a relay's does; the rest of one that was cut is tested above.
        last = newer[min(self.size, len(newer)) - 1].ts_ms if newer else 0
        return [entry for entry in newer if entry.ts_ms <= last]


def read_while_it_grows(server: Server, reader: Reader, limits: list[int | None], *, reconnecting: bool) -> list[Row]:
    rows: list[Row] = []
    while True:
        limit = limits[len(rows) % len(limits)]
        complete = not server.steps
        start = History("ops", after_ts=0, limit=limit)
        page = reader.page(History("ops", after=rows[-1].id, limit=limit) if rows else start)
        rows += page.messages
        if complete and not page.more:
            return rows
        if reconnecting and server.random.random() < 0.5:
            reader.reconnect()


LIMITS = st.lists(st.sampled_from([None, 1, 2, 500]), min_size=1, max_size=4)


@given(steps=TIMES, seed=st.integers(0, 2**32), size=st.sampled_from([1, 3, 500]), limits=LIMITS)
def test_reading_on_leaves_nothing_out_and_repeats_nothing(
    steps: list[int], seed: int, size: int, limits: list[int | None]
) -> None:
    """In order, over any number of connections, though most rows are equal and many share a millisecond."""
    server = Server(steps, seed, size, ordered=True)
    rows = read_while_it_grows(server, Reader(server.read), limits, reconnecting=True)
    assert [(entry.ts, entry.body.text) for entry in rows] == [
        (entry.ts_ms, entry.payload.text) for entry in server.rows if isinstance(entry.payload, Plain)
    ]
    assert len({entry.id for entry in rows}) == len(rows)


@given(steps=TIMES, seed=st.integers(0, 2**32), size=st.sampled_from([1, 3, 500]))
def test_the_order_within_a_millisecond_may_change_from_read_to_read(steps: list[int], seed: int, size: int) -> None:
    """As long as the connection lasts; the next one has to trust the server's order."""
    server = Server(steps, seed, size, ordered=False)
    rows = read_while_it_grows(server, Reader(server.read), [None], reconnecting=False)
    assert Counter((entry.ts, entry.body.text) for entry in rows) == Counter(
        (entry.ts_ms, entry.payload.text) for entry in server.rows if isinstance(entry.payload, Plain)
    )
    assert len({entry.id for entry in rows}) == len(rows)
