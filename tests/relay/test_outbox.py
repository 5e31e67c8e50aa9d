"""The queue of one socket: order, few writes, a bound in bytes, and nothing after the end."""

import asyncio
from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from relay.sessions.outbox import FLUSH_BYTES, WINDOW_SECONDS, Flusher, Outbox
from tests.support.waiting import wait_until

LIMIT = 4 * FLUSH_BYTES


class Transport:
    """A transport whose peer reads only when told to."""

    def __init__(self) -> None:
        self.writes: list[bytes] = []
        self.unread = 0
        self.closing = False

    def write(self, data: bytes) -> None:
        assert not self.closing, "uvloop raises here"
        self.writes.append(data)
        self.unread += len(data)

    def is_closing(self) -> bool:
        return self.closing

    def get_write_buffer_size(self) -> int:
        return self.unread


class Timer(Flusher):
    """A flusher whose window ends when the test says so."""

    def __init__(self) -> None:
        super().__init__(lambda _: None)
        self.waiting: list[Outbox] = []

    def add(self, outbox: Outbox) -> None:
        self.waiting.append(outbox)

    def ring(self) -> None:
        waiting, self.waiting = self.waiting, []
        for outbox in waiting:
            outbox.flush()


class Case:
    """An outbox and everything around it; the clock stands still unless it is moved."""

    def __init__(self, *, limit: int = LIMIT, opened: bool = True) -> None:
        self.transport = Transport()
        self.timer = Timer()
        self.now = 100.0
        self.overflows = 0
        self.outbox = Outbox(self.transport, self.timer, limit=limit, on_overflow=self.overflow, clock=lambda: self.now)
        if opened:
            self.outbox.open()

    def overflow(self) -> None:
        self.overflows += 1

    @property
    def sent(self) -> bytes:
        return b"".join(self.transport.writes)


def test_an_idle_session_gets_a_frame_at_once() -> None:
    """Nobody who talks to one other person waits for a window."""
    case = Case()
    case.outbox.push(b"a")
    assert case.transport.writes == [b"a"]
    assert not case.timer.waiting


def test_frames_for_a_busy_session_leave_in_one_write() -> None:
    """Fewer writes is what makes fan-out cheap."""
    case = Case()
    for frame in (b"a", b"b", b"c", b"d"):
        case.outbox.push(frame)
    assert case.transport.writes == [b"a"]
    assert case.timer.waiting == [case.outbox], "asked for one flush, not for three"
    case.timer.ring()
    assert case.transport.writes == [b"a", b"bcd"]


def test_a_session_is_idle_again_after_the_window() -> None:
    """The window applies to bursts, not to a session that was written to a while ago."""
    case = Case()
    case.outbox.push(b"a")
    case.now += WINDOW_SECONDS
    case.outbox.push(b"b")
    assert case.transport.writes == [b"a", b"b"]


def test_a_full_window_is_written_before_its_end() -> None:
    """Gathering must not add up to a large write, nor to memory."""
    case = Case()
    case.outbox.push(b"a")
    case.outbox.push(b"b" * (FLUSH_BYTES - 1))
    assert len(case.transport.writes) == 1
    case.outbox.push(b"c")
    assert len(case.transport.writes) == 2
    case.timer.ring()
    assert len(case.transport.writes) == 2, "nothing is left for the window's end"


def test_a_reply_does_not_wait_and_overtakes_nothing() -> None:
    """A request's reply comes behind the messages that were pushed before it."""
    case = Case()
    case.outbox.push(b"a")
    case.outbox.push(b"b")
    case.outbox.send(b"reply")
    assert case.transport.writes == [b"a", b"breply"]


def test_nothing_overtakes_the_answer_to_the_login() -> None:
    """A whisper may reach a session before it is told that it is established; clients take that for an error."""
    case = Case(opened=False)
    case.outbox.push(b"whisper")
    case.outbox.push(b"message")
    case.timer.ring()
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


def test_whoever_exceeds_the_bound_is_dropped_once() -> None:
    """A slow reader costs a bounded number of bytes, its own pending ones included, and is reported once."""
    case = Case(limit=100)
    case.outbox.send(b"." * 100)
    assert case.overflows == 0
    for _ in range(3):
        case.outbox.send(b".")
        case.outbox.push(b".")
    assert case.overflows == 1
    assert case.sent == b"." * 100
    assert case.outbox.buffered == 100


def test_a_reader_that_keeps_up_is_never_dropped() -> None:
    """The bound is on what is unread, not on what was ever sent."""
    case = Case(limit=100)
    for _ in range(50):
        case.outbox.send(b"." * 90)
        case.transport.unread = 0
    assert case.overflows == 0
    assert len(case.sent) == 50 * 90


def test_the_last_words_get_through_although_the_queue_overflowed() -> None:
    """A slow reader is told the reason as soon as it reads on."""
    case = Case(limit=10)
    case.outbox.send(b"." * 10)
    case.outbox.send(b"lost")
    case.outbox.finish(b"reason")
    assert case.transport.writes == [b"." * 10, b"reason"]


def test_finishing_writes_what_is_pending_first_and_nothing_afterwards() -> None:
    """The reason of a close is the last thing that a peer reads."""
    case = Case()
    case.outbox.push(b"a")
    case.outbox.push(b"b")
    case.outbox.finish(b"reason", b"close")
    case.outbox.push(b"late")
    case.outbox.send(b"late")
    case.outbox.finish(b"late")
    case.timer.ring()
    assert case.transport.writes == [b"a", b"breasonclose"]


def test_a_peer_that_is_gone_disturbs_nobody() -> None:
    """A write after the close raises on uvloop: one dead peer must not end a fan-out to a thousand."""
    case = Case()
    case.transport.closing = True
    case.outbox.push(b"a")
    case.outbox.send(b"b")
    case.outbox.push(b"c")
    case.timer.ring()
    case.outbox.finish(b"d")
    assert case.transport.writes == []
    assert case.overflows == 0


async def test_the_flusher_flushes_every_outbox_within_a_window() -> None:
    """One timer serves all sessions of a node."""
    flusher = Flusher(lambda _: None)
    transports = [Transport() for _ in range(3)]
    clock: Callable[[], float] = asyncio.get_running_loop().time
    for transport in transports:
        outbox = Outbox(transport, flusher, limit=LIMIT, on_overflow=lambda: None, clock=clock)
        outbox.open(b"welcome")
        outbox.push(b"a")
        outbox.push(b"b")
    assert [transport.writes for transport in transports] == [[b"welcome"]] * 3
    await wait_until(lambda: all(len(transport.writes) == 2 for transport in transports), what="the window ended")
    assert [transport.writes for transport in transports] == [[b"welcome", b"ab"]] * 3


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("push"), st.integers(0, 300)),
        st.tuples(st.just("send"), st.integers(0, 300)),
        st.tuples(st.just("ring"), st.just(0)),
        st.tuples(st.just("wait"), st.just(0)),
        st.tuples(st.just("read"), st.integers(0, 500)),
    ),
    max_size=60,
)


@given(STEPS)
def test_whatever_happens_the_bytes_come_in_order_and_within_the_bound(steps: list[tuple[str, int]]) -> None:
    """All that was given, in that order, up to the point where the reader was too slow; never more than the bound."""
    case = Case(limit=1000)
    given_bytes = b""
    for number, (step, size) in enumerate(steps):
        frame = bytes([number]) * size
        if step in ("push", "send"):
            given_bytes += frame
            getattr(case.outbox, step)(frame)
        elif step == "ring":
            case.timer.ring()
        elif step == "wait":
            case.now += WINDOW_SECONDS
        else:
            case.transport.unread = max(0, case.transport.unread - size)
        assert case.transport.unread <= 1000
        assert given_bytes.startswith(case.sent)
    case.outbox.finish()
    assert case.overflows <= 1
    if not case.overflows:
        assert case.sent == given_bytes
