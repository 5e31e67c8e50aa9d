"""The queue of one socket: order, few writes, a bound in bytes, and nothing after the end."""

import asyncio
from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from relay.sessions.outbox import FLUSH_BYTES, Flusher, FlushPolicy, Outbox

LIMIT = 4 * FLUSH_BYTES


class Transport:
    """A transport whose peer reads only when told to. A write takes as long as the test says."""

    def __init__(self) -> None:
        self.writes: list[bytes] = []
        self.unread = 0
        self.closing = False
        self.on_write: Callable[[], None] = lambda: None

    def write(self, data: bytes) -> None:
        assert not self.closing, "uvloop raises here"
        self.writes.append(data)
        self.unread += len(data)
        self.on_write()

    def is_closing(self) -> bool:
        return self.closing

    def get_write_buffer_size(self) -> int:
        return self.unread


class Ticks:
    """A flusher on a clock that stands still, and on an event loop whose ticks end when the test says so."""

    def __init__(self, *, max_gather: float = 0.01) -> None:
        self.now = 100.0
        self.sent = 0
        self._calls: list[tuple[float, Callable[[], None]]] = []
        self.flusher = Flusher(self._count, FlushPolicy(max_gather), clock=lambda: self.now, schedule=self._add)

    def _count(self, size: int) -> None:
        self.sent += size

    def _add(self, delay: float, callback: Callable[[], None]) -> None:
        self._calls.append((self.now + delay, callback))

    @property
    def waiting(self) -> int:
        """The number of calls that are scheduled."""
        return len(self._calls)

    def end(self, *, after: float = 0) -> None:
        """End the tick, this much later."""
        self.now += after
        due, self._calls = (
            [call for call in self._calls if (call[0] <= self.now) == is_due] for is_due in (True, False)
        )
        for _, callback in due:
            callback()


class Case:
    """An outbox and everything around it."""

    def __init__(self, *, limit: int = LIMIT, opened: bool = True, ticks: Ticks | None = None) -> None:
        self.transport = Transport()
        self.ticks = ticks or Ticks()
        self.overflows = 0
        self.outbox = Outbox(self.transport, self.ticks.flusher, limit=limit, on_overflow=self.overflow)
        if opened:
            self.outbox.open()

    def overflow(self) -> None:
        self.overflows += 1

    @property
    def sent(self) -> bytes:
        return b"".join(self.transport.writes)


def listeners(count: int, *, write_seconds: float, max_gather: float = 0.01) -> tuple[Ticks, list[Case]]:
    """Return the outboxes of one flusher, in which every write takes so long."""
    ticks = Ticks(max_gather=max_gather)
    cases = [Case(ticks=ticks) for _ in range(count)]

    def pass_time() -> None:
        ticks.now += write_seconds

    for case in cases:
        case.transport.on_write = pass_time
    return ticks, cases


def test_the_events_of_a_tick_leave_in_one_write_at_its_end() -> None:
    """Nobody who talks to one other person waits for longer, and fewer writes is what makes fan-out cheap."""
    case = Case()
    for frame in (b"a", b"b", b"c"):
        case.outbox.push(frame)
    assert case.transport.writes == []
    assert case.ticks.waiting == 1, "asked for one flush, not for three"
    case.ticks.end()
    assert case.transport.writes == [b"abc"]


def test_messages_that_depend_on_each_other_never_wait() -> None:
    """A tick in which every session got one frame does not delay the next one, however long its writes took."""
    ticks, cases = listeners(100, write_seconds=0.000_01)
    for number in range(5):
        ticks.flusher.push(b"a", [case.outbox for case in cases])
        ticks.end()
        assert {len(case.transport.writes) for case in cases} == {number + 1}


def test_the_events_of_a_burst_gather_in_proportion_to_its_writes() -> None:
    """A fan-out to many sessions writes once for several messages, without a window that an idle node would pay."""
    ticks, cases = listeners(100, write_seconds=0.000_01)
    outboxes = [case.outbox for case in cases]
    for frame in (b"a", b"b"):
        ticks.flusher.push(frame, outboxes)
    ticks.end()
    assert {tuple(case.transport.writes) for case in cases} == {(b"ab",)}
    for frame in (b"c", b"d", b"e"):
        ticks.flusher.push(frame, outboxes)
        ticks.end(after=0.001)
    assert {tuple(case.transport.writes) for case in cases} == {(b"ab",)}
    ticks.end(after=0.002)
    assert {tuple(case.transport.writes) for case in cases} == {(b"ab", b"cde")}


def test_without_gathering_every_tick_flushes() -> None:
    """An operator may prefer latency to everything."""
    ticks, cases = listeners(100, write_seconds=0.000_01, max_gather=0)
    for number in range(3):
        for frame in (b"a", b"b"):
            ticks.flusher.push(frame, [case.outbox for case in cases])
        ticks.end()
        assert {len(case.transport.writes) for case in cases} == {number + 1}


def test_gathered_frames_beyond_a_size_are_written_immediately() -> None:
    """Gathering must not add up to a large write, nor to memory."""
    case = Case()
    case.outbox.push(b"b" * (FLUSH_BYTES - 1))
    assert case.transport.writes == []
    case.outbox.push(b"c")
    assert len(case.transport.writes) == 1
    case.ticks.end()
    assert len(case.transport.writes) == 1, "nothing is left for the end of the tick"


def test_an_event_reaches_all_but_the_sender() -> None:
    """A session never gets its own message."""
    ticks, cases = listeners(3, write_seconds=0)
    ticks.flusher.push(b"a", [case.outbox for case in cases], cases[1].outbox)
    ticks.end()
    assert [case.sent for case in cases] == [b"a", b"", b"a"]


def test_sessions_with_different_events_each_get_their_own() -> None:
    """Listeners of the same frames share the joined bytes; others must not."""
    ticks, cases = listeners(3, write_seconds=0)
    first, second, third = (case.outbox for case in cases)
    ticks.flusher.push(b"a", (first, second, third))
    ticks.flusher.push(b"b", (first, second))
    ticks.flusher.push(b"c", (second, third))
    ticks.end()
    assert [case.transport.writes for case in cases] == [[b"ab"], [b"abc"], [b"ac"]]
    ticks.flusher.push(b"a", (third,))
    ticks.flusher.push(b"c", (third,))
    ticks.end()
    assert cases[2].transport.writes == [b"ac", b"ac"]
    assert ticks.sent == sum(len(case.sent) for case in cases)


def test_a_reply_waits_for_no_more_than_the_tick_and_overtakes_nothing() -> None:
    """A request's reply comes behind the messages that were pushed before it, also on a node that gathers."""
    ticks, (case,) = listeners(1, write_seconds=0.001)
    for frame in (b"a", b"b"):
        case.outbox.push(frame)
    ticks.end()
    case.outbox.push(b"c")
    ticks.end()
    assert case.transport.writes == [b"ab"], "it gathers"
    case.outbox.send(b"reply")
    ticks.end()
    assert case.transport.writes == [b"ab", b"creply"]


def test_the_replies_of_a_tick_leave_in_one_write() -> None:
    """A client that sends many requests at once costs one write for all of them."""
    case = Case()
    for reply in (b"1", b"2", b"3"):
        case.outbox.send(reply)
    assert case.ticks.waiting == 1
    case.ticks.end()
    assert case.transport.writes == [b"123"]


def test_large_replies_do_not_wait_for_the_end_of_the_tick() -> None:
    """The transport's back-pressure has to see them."""
    case = Case()
    case.outbox.send(b"." * FLUSH_BYTES)
    assert len(case.transport.writes) == 1


def test_nothing_overtakes_the_answer_to_the_login() -> None:
    """A whisper may reach a session before it is told that it is established; clients take that for an error."""
    case = Case(opened=False)
    case.outbox.push(b"whisper")
    case.outbox.push(b"message")
    case.ticks.end()
    assert case.transport.writes == []
    case.outbox.open(b"established", b"info")
    assert case.transport.writes == [b"establishedinfowhispermessage"]


def test_what_waits_for_the_login_is_bounded_too() -> None:
    """A login may take as long as the store takes."""
    case = Case(limit=10, opened=False)
    case.outbox.push(b"." * 10)
    assert case.overflows == 0
    case.outbox.push(b".")
    assert case.overflows == 1
    assert case.outbox.buffered == 0


def test_a_session_above_the_bound_is_dropped_once() -> None:
    """A slow reader costs a bounded number of bytes, its own pending ones included, and is reported once."""
    case = Case(limit=100)
    case.outbox.send(b"." * 100)
    case.ticks.end()
    assert case.overflows == 0
    for _ in range(3):
        case.outbox.send(b".")
        case.outbox.push(b".")
        case.ticks.end()
    assert case.overflows == 1
    assert case.sent == b"." * 100
    assert case.outbox.buffered == 100


def test_a_reader_that_keeps_up_is_never_dropped() -> None:
    """The bound is on what is unread, not on what was ever sent."""
    case = Case(limit=100)
    for _ in range(50):
        case.outbox.send(b"." * 90)
        case.ticks.end()
        case.transport.unread = 0
    assert case.overflows == 0
    assert len(case.sent) == 50 * 90


def test_the_reason_of_a_close_is_written_although_the_queue_overflowed() -> None:
    """A slow reader is told the reason as soon as it reads on."""
    case = Case(limit=10)
    for frame in (b"." * 10, b"lost"):
        case.outbox.send(frame)
        case.ticks.end()
    case.outbox.finish(b"reason")
    assert case.transport.writes == [b"." * 10, b"reason"]


def test_finishing_writes_what_is_pending_first_and_nothing_afterwards() -> None:
    """The reason of a close is the last thing that a peer reads."""
    case = Case()
    case.outbox.push(b"a")
    case.outbox.send(b"b")
    case.outbox.finish(b"reason", b"close")
    case.outbox.push(b"late")
    case.outbox.send(b"late")
    case.outbox.finish(b"late")
    case.ticks.end()
    assert case.transport.writes == [b"abreasonclose"]


def test_a_session_that_ends_gets_its_reply_and_no_more_events() -> None:
    """Frames from before the end are still written."""
    case = Case()
    case.outbox.push(b"before")
    case.outbox.mute()
    case.outbox.push(b"after")
    case.outbox.send(b"reply")
    case.ticks.end()
    case.outbox.push(b"after")
    case.ticks.end()
    assert case.transport.writes == [b"beforereply"]


def test_a_write_to_a_closed_peer_raises_nothing() -> None:
    """A write after the close raises on uvloop: one dead peer must not end a fan-out to a thousand."""
    case = Case()
    case.transport.closing = True
    case.outbox.push(b"a")
    case.outbox.send(b"b")
    case.outbox.push(b"c")
    case.ticks.end()
    case.outbox.finish(b"d")
    assert case.transport.writes == []
    assert case.overflows == 0


async def test_a_tick_of_the_event_loop_ends_with_the_flush() -> None:
    """Events and replies of many sessions leave once the callbacks that are ready have run."""
    flusher = Flusher(lambda _: None, FlushPolicy(0.01))
    transports = [Transport() for _ in range(3)]
    for transport in transports:
        outbox = Outbox(transport, flusher, limit=LIMIT, on_overflow=lambda: None)
        outbox.open(b"welcome")
        outbox.push(b"a")
        outbox.send(b"b")
    assert [transport.writes for transport in transports] == [[b"welcome"]] * 3
    await asyncio.sleep(0)
    assert [transport.writes for transport in transports] == [[b"welcome", b"ab"]] * 3


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("push"), st.integers(0, 300)),
        st.tuples(st.just("send"), st.integers(0, 300)),
        st.tuples(st.just("tick"), st.just(0)),
        st.tuples(st.just("wait"), st.just(0)),
        st.tuples(st.just("read"), st.integers(0, 500)),
    ),
    max_size=60,
)


@given(STEPS)
def test_any_steps_keep_the_order_and_the_bound(steps: list[tuple[str, int]]) -> None:
    """All frames in their order, up to the point where the reader was too slow; never more than the bound."""
    ticks, (case,) = listeners(1, write_seconds=0.001)
    case.outbox = Outbox(case.transport, ticks.flusher, limit=1000, on_overflow=case.overflow)
    case.outbox.open()
    given_bytes = b""
    for number, (step, size) in enumerate(steps):
        frame = bytes([number]) * size
        if step in ("push", "send"):
            given_bytes += frame
            getattr(case.outbox, step)(frame)
        elif step in ("tick", "wait"):
            ticks.end(after=0.01 if step == "wait" else 0)
        else:
            case.transport.unread = max(0, case.transport.unread - size)
        assert case.transport.unread <= 1000
        assert given_bytes.startswith(case.sent)
    case.outbox.finish()
    assert case.overflows <= 1
    if not case.overflows:
        assert case.sent == given_bytes


def test_a_defect_in_one_write_ends_its_session_and_leaves_the_others_alone() -> None:
    """The frames are lost to it, so it has to come back and resume."""

    def fail() -> None:
        raise OSError("a write that nobody expected to fail")

    ticks, cases = listeners(3, write_seconds=0)
    cases[0].transport.on_write = fail
    ticks.flusher.push(b"event", [case.outbox for case in cases])
    ticks.end()
    assert [case.overflows for case in cases] == [1, 0, 0]
    assert [case.transport.writes[-1:] for case in cases[1:]] == [[b"event"]] * 2
