"""The order of one channel on one node: each rule, and a model in which all faults happen at once."""

import tracemalloc
from collections import deque

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from relay.channels.held_messages import HELD_BYTES
from relay.channels.ordering import Ordering
from relay.model.message import START, Message, order
from relay.redis.channel_log import parse_live


def message(number: int, previous: int | None = None, size: int = 1) -> Message:
    """Message `number` of a channel, the successor of `previous` (of its neighbour by default)."""
    before = number - 1 if previous is None else previous
    return Message(f"{number}-0", number, f"{before}-0" if before else START, "a/b/c", b"." * size)


def live_ordering(position: int) -> Ordering:
    """An ordering that has read its log up to `position` and expects the next live message."""
    ordering = Ordering()
    ordering.start(f"{position}-0")
    assert ordering.add_page([], more=False, known=True, tip=f"{position}-0") == ([], False)
    return ordering


# --- The rules one by one ---


def test_the_log_is_read_before_live_delivery() -> None:
    """The topic may be subscribed after the position was read: messages in between are only in the log."""
    ordering = Ordering()
    ordering.start("3-0")
    assert not ordering.is_live
    assert ordering.add_page([message(4)], more=False, known=True, tip="4-0") == ([message(4)], False)
    assert ordering.position == "4-0"
    assert ordering.is_live


def test_a_successor_is_delivered_at_once() -> None:
    """The hot path: no log is read as long as every message names the one before it."""
    ordering = live_ordering(1)
    assert [ordering.receive(message(n)) for n in (2, 3)] == [(message(2),), (message(3),)]
    assert ordering.is_live


def test_a_delivered_message_is_not_delivered_again() -> None:
    """The log may have been faster than live delivery."""
    ordering = live_ordering(3)
    assert ordering.receive(message(2)) == ()
    assert ordering.receive(message(3)) == ()
    assert ordering.is_live


def test_a_gap_is_filled_from_the_log_and_then_live_goes_on() -> None:
    """No live message may overtake a missing one."""
    ordering = live_ordering(1)
    assert ordering.receive(message(4)) == ()
    assert not ordering.is_live
    assert ordering.receive(message(5)) == ()
    page = [message(2), message(3), message(4)]
    assert ordering.add_page(page, more=False, known=True, tip="4-0") == ([*page, message(5)], False)
    assert ordering.is_live


def test_live_messages_wait_until_the_log_is_read_to_its_end() -> None:
    """Pages are bounded, so catching up may take several."""
    ordering = live_ordering(1)
    ordering.receive(message(4))
    assert ordering.add_page([message(2)], more=True, known=True, tip="4-0") == ([message(2)], False)
    assert not ordering.is_live
    assert ordering.add_page([message(3)], more=False, known=True, tip="4-0") == ([message(3), message(4)], False)
    assert ordering.is_live


def test_after_an_interruption_the_log_is_read_even_if_nothing_follows() -> None:
    """The last message before a silence may be the one that was lost."""
    ordering = live_ordering(1)
    ordering.require_log()
    assert not ordering.is_live
    assert ordering.add_page([message(2)], more=False, known=True, tip="2-0") == ([message(2)], False)
    assert ordering.is_live


def test_an_interruption_while_a_page_is_on_its_way_asks_for_another_page() -> None:
    """That page may have been read before the missed message was posted."""
    ordering = live_ordering(1)
    ordering.require_log()
    ordering.require_log()
    assert ordering.add_page([], more=False, known=True, tip="1-0") == ([], False)
    assert not ordering.is_live
    assert ordering.add_page([message(2)], more=False, known=True, tip="2-0") == ([message(2)], False)
    assert ordering.is_live


def test_held_messages_are_bounded_and_dropped_ones_are_read_from_the_log() -> None:
    """A node that waits for a log must not fill its memory with a busy channel, nor forget its last message."""
    ordering = live_ordering(1)
    ordering.require_log()
    big = [message(n, size=HELD_BYTES // 2 + 1) for n in (2, 3)]
    for each in big:
        assert ordering.receive(each) == ()
    assert ordering.held_bytes <= HELD_BYTES
    assert ordering.add_page([], more=False, known=True, tip="1-0") == ([], False)
    assert not ordering.is_live, "the page on its way did not have the dropped messages"
    assert ordering.add_page(big, more=False, known=True, tip="3-0") == (big, False)
    assert ordering.is_live


def test_many_small_messages_are_bounded_by_the_memory_that_they_occupy() -> None:
    """Most of a short message is not its body: counted by bodies alone, a mebibyte of them would occupy 70."""
    ordering = live_ordering(1)
    ordering.require_log()
    row = b"%d-0\x00%d-0\x001\x00ann/laptop/main\x00."
    tracemalloc.start()
    try:
        for number in range(2, 20_000):
            message = parse_live(row % (number, number - 1))
            assert message is not None
            ordering.receive(message)
        ours = tracemalloc.take_snapshot().filter_traces(
            [tracemalloc.Filter(inclusive=True, filename_pattern="*/relay/*")]
        )
    finally:
        tracemalloc.stop()
    occupied = sum(statistic.size for statistic in ours.statistics("filename"))
    assert HELD_BYTES / 4 < occupied <= 1.25 * HELD_BYTES, "neither more than the bound, nor nothing that was counted"


def test_a_trimmed_log_is_reported_and_delivery_goes_on() -> None:
    """A gap that cannot be filled is reported, never skipped silently."""
    ordering = live_ordering(1)
    ordering.require_log()
    assert ordering.add_page([message(7)], more=False, known=False, tip="7-0") == ([message(7)], True)
    assert ordering.receive(message(8)) == (message(8),)


def test_an_emptied_log_is_reported_and_delivery_goes_on_from_its_tip() -> None:
    """There is nothing to read, yet the next message names a predecessor that was never delivered."""
    ordering = live_ordering(1)
    ordering.require_log()
    assert ordering.add_page([], more=False, known=False, tip="7-0") == ([], True)
    assert ordering.is_live
    assert ordering.receive(message(8)) == (message(8),)


def test_a_failover_that_lost_the_end_of_the_log_is_reported() -> None:
    """The new server's log has other messages than those that were delivered."""
    ordering = live_ordering(5)
    ordering.require_log()
    assert ordering.add_page([], more=False, known=False, tip="3-0") == ([], True)
    assert ordering.receive(message(9, previous=3)) == (message(9, previous=3),)


def test_a_held_message_that_the_log_lost_is_given_up_and_reported() -> None:
    """Otherwise the same page would be requested for ever."""
    ordering = live_ordering(1)
    ordering.require_log()
    ordering.receive(message(5))
    for lost in (False, True):
        assert not ordering.is_live
        assert ordering.add_page([], more=False, known=True, tip="1-0") == ([], lost)
    assert ordering.is_live
    assert ordering.receive(message(9, previous=1)) == (message(9, previous=1),)


# --- All at once ---

PAYLOADS = (b"", b"x", b"." * (HELD_BYTES // 2), b"." * (HELD_BYTES + 1))


class Channel(RuleBasedStateMachine):
    """A log, an unreliable live topic, one reader of pages, and the ordering that joins both."""

    def __init__(self) -> None:
        super().__init__()
        self.ordering = Ordering()
        self.posted: list[Message] = []
        self.log: list[Message] = []
        self.live_topic: deque[Message] = deque()
        self.earlier: list[Message] = []
        self.connected = False
        self.in_flight: tuple[list[Message], bool, bool, str] | None = None
        self.delivered: list[Message] = []
        self.start = ""
        self.excused: set[str] = set()
        self.reported = False

    @property
    def tip(self) -> str:
        return self.posted[-1].id if self.posted else START

    @initialize(before=st.integers(1, 3), between=st.integers(0, 3))
    def begin(self, before: int, between: int) -> None:
        """The first session joins: the tip is read, and the topic is subscribed only a few messages later."""
        for _ in range(before):
            self.post(b"x", lost=False)
        self.start = self.tip
        for _ in range(between):
            self.post(b"x", lost=False)
        self.connected = True
        self.ordering.start(self.start)

    @rule(payload=st.sampled_from(PAYLOADS), lost=st.integers(0, 9).map(lambda n: n == 0))
    def post(self, payload: bytes, lost: bool) -> None:
        posted = Message(
            f"{len(self.posted) // 3 + 1}-{len(self.posted) % 3}", len(self.posted) // 3 + 1, self.tip, "a/b/c", payload
        )
        self.posted.append(posted)
        self.log.append(posted)
        if self.connected and not lost:
            self.live_topic.append(posted)

    @precondition(lambda self: self.live_topic)
    @rule()
    def deliver(self) -> None:
        live = self.live_topic.popleft()
        self.earlier.append(live)
        self.delivered += self.ordering.receive(live)

    @precondition(lambda self: self.earlier)
    @rule(data=st.data())
    def repeat(self, data: st.DataObject) -> None:
        """An earlier message comes again, late."""
        self.delivered += self.ordering.receive(data.draw(st.sampled_from(self.earlier)))

    @precondition(lambda self: self.connected)
    @rule()
    def disconnect(self) -> None:
        self.connected = False
        self.live_topic.clear()

    @precondition(lambda self: not self.connected)
    @rule()
    def reconnect(self) -> None:
        self.connected = True
        self.ordering.require_log()

    @precondition(lambda self: self.log)
    @rule(count=st.integers(1, 4))
    def trim(self, count: int) -> None:
        """Retention runs out; the tip stays known."""
        self.excused.update(each.id for each in self.log[:count])
        del self.log[:count]

    @precondition(lambda self: not self.ordering.is_live and self.in_flight is None)
    @rule(rows=st.integers(1, 3))
    def ask(self, rows: int) -> None:
        """A page is read; its reply comes at some later time."""
        after = self.ordering.position
        known = after in (START, self.tip) or any(each.id == after for each in self.log)
        following = [each for each in self.log if order(each.id) > order(after)]
        page = [Message(each.id, each.ts_ms, "", each.sender, each.payload) for each in following[:rows]]
        self.in_flight = page, len(following) > rows, known, self.tip

    @precondition(lambda self: self.in_flight is not None)
    @rule()
    def reply(self) -> None:
        assert self.in_flight is not None
        (page, more, known, tip), self.in_flight = self.in_flight, None
        out, lost = self.ordering.add_page(page, more=more, known=known, tip=tip)
        self.delivered += out
        self.reported |= lost

    @invariant()
    def nothing_is_skipped_silently_or_repeated(self) -> None:
        """Up to the position every message is delivered once and in order, except for reported losses."""
        ids = [each.id for each in self.delivered]
        assert ids == sorted(set(ids), key=order)
        expected = [
            m.id for m in self.posted if order(self.start or START) < order(m.id) <= order(self.ordering.position)
        ]
        missing = set(expected) - set(ids)
        assert missing <= self.excused
        assert self.reported or not missing

    @invariant()
    def little_is_held_back(self) -> None:
        assert self.ordering.held_bytes <= HELD_BYTES

    def teardown(self) -> None:
        """With a good connection everything arrives; a message that was lost silently arrives with the next one."""
        if not self.connected:
            self.reconnect()
        self.post(b"last", lost=False)
        while self.live_topic:
            self.deliver()
        for _ in range(len(self.posted) + 4):
            if self.in_flight is not None:
                self.reply()
            elif not self.ordering.is_live:
                self.ask(rows=3)
        assert self.ordering.is_live
        assert self.ordering.position == self.tip
        self.nothing_is_skipped_silently_or_repeated()
        if not self.excused:
            assert not self.reported


class QuietChannel(Channel):
    """The same without silent losses and without a last message: missed messages must come all the same."""

    @rule(payload=st.sampled_from(PAYLOADS))
    def post(self, payload: bytes, lost: bool = False) -> None:  # noqa: ARG002 - never silently
        super().post(payload, lost=False)

    def teardown(self) -> None:
        if not self.connected:
            self.reconnect()
        while self.live_topic:
            self.deliver()
        for _ in range(2 * len(self.posted) + 4):
            if self.in_flight is not None:
                self.reply()
            elif not self.ordering.is_live:
                self.ask(rows=3)
        assert self.ordering.is_live
        assert self.ordering.position == self.tip
        self.nothing_is_skipped_silently_or_repeated()


TestChannel = Channel.TestCase
TestChannel.settings = settings(stateful_step_count=30)
TestQuietChannel = QuietChannel.TestCase
TestQuietChannel.settings = settings(stateful_step_count=30)
