"""The transition from the log to live delivery, under any interleaving of posts, pages, overflows and a failover."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from relay.channels import held_messages
from relay.channels.catch_up import CatchUp, Gap
from relay.model.message import START, Message, order


def message(number: int, size: int = 10) -> Message:
    return Message(f"{number}-0", number, "", "ann/laptop/main", b"x" * size)


def ids(steps: list[Message | Gap]) -> list[str]:
    return [step.id if isinstance(step, Message) else f"lost after {step.after}" for step in steps]


def test_a_page_that_reaches_the_live_messages_is_the_last_one() -> None:
    """Messages that came meanwhile are delivered after it, once."""
    catch_up = CatchUp("1-0", "3-0", "3-0")
    assert catch_up.begin_page() == "1-0"
    catch_up.receive(message(4))
    catch_up.receive(message(5))
    steps = catch_up.add_page([message(2), message(3), message(4)], more=False, known=True, tip="4-0")
    assert ids(steps) == ["2-0", "3-0", "4-0", "5-0"]
    assert catch_up.done
    assert catch_up.position == "5-0"


def test_a_session_ahead_of_live_delivery_is_live_at_once() -> None:
    """The log was faster than live delivery: live messages up to the position are known already."""
    catch_up = CatchUp("7-0", "5-0", "7-0")
    catch_up.begin_page()
    assert catch_up.add_page([], more=False, known=True, tip="7-0") == []
    assert catch_up.done
    assert catch_up.position == "7-0"


def test_a_gap_of_trimmed_messages_is_reported_before_the_rest() -> None:
    """The gap is where the messages are missing."""
    catch_up = CatchUp("1-0", "9-0", "9-0")
    catch_up.begin_page()
    steps = catch_up.add_page([message(8), message(9)], more=False, known=False, tip="9-0")
    assert ids(steps) == ["lost after 1-0", "8-0", "9-0"]
    assert catch_up.done


def test_a_gap_at_the_end_of_the_log_is_reported_after_the_rest() -> None:
    """A delivered message that the log no longer has does not reach the session, and the session is told."""
    catch_up = CatchUp("1-0", "5-0", "5-0")
    catch_up.begin_page()
    catch_up.receive(message(6))
    steps = catch_up.add_page([message(2), message(3)], more=False, known=True, tip="3-0")
    assert ids(steps) == ["2-0", "3-0", "lost after 3-0", "6-0"]
    assert catch_up.done


@pytest.mark.parametrize("when", ["while a page is on its way", "between two pages"])
def test_a_message_that_a_failover_lost_between_pages_is_reported(when: str) -> None:
    """Such a message is not held: the log had it when it was delivered, and a later page should have brought it."""
    catch_up = CatchUp("1-0", "5-0", "5-0")
    catch_up.begin_page()
    if when == "while a page is on its way":
        catch_up.receive(message(6))
    assert ids(catch_up.add_page([message(2)], more=True, known=True, tip="6-0")) == ["2-0"]
    if when == "between two pages":
        catch_up.receive(message(6))
    catch_up.begin_page()
    steps = catch_up.add_page([message(number) for number in (3, 4, 5)], more=False, known=True, tip="5-0")
    assert ids(steps) == ["3-0", "4-0", "5-0", "lost after 5-0"]
    assert catch_up.done


def test_a_position_that_a_failover_lost_is_reported_once() -> None:
    """The session goes on at the log's end, not behind it."""
    catch_up = CatchUp("8-0", "8-0", "8-0")
    catch_up.begin_page()
    catch_up.receive(message(9))
    assert ids(catch_up.add_page([], more=False, known=False, tip="3-0")) == ["lost after 8-0", "9-0"]
    assert catch_up.done


def test_a_join_with_a_future_position_gets_all_messages_after_the_join() -> None:
    """The position is useless, but the reply to the join promises every message after the log's end of that moment."""
    catch_up = CatchUp("9-0", "1-0", "1-0")
    assert catch_up.begin_page() == "1-0"
    catch_up.receive(message(2))
    catch_up.receive(message(3))
    steps = catch_up.add_page([message(2)], more=False, known=True, tip="2-0")
    assert ids(steps) == ["lost after 9-0", "2-0", "3-0"]
    assert catch_up.done
    assert catch_up.position == "3-0"


def test_a_future_position_leads_to_live_delivery_at_once() -> None:
    """Nothing was posted since: the next live message is next, however far before that position."""
    catch_up = CatchUp("9-0", "1-0", "1-0")
    catch_up.begin_page()
    assert ids(catch_up.add_page([], more=False, known=True, tip="1-0")) == ["lost after 9-0"]
    assert catch_up.done
    assert catch_up.position == "1-0"


def test_messages_above_the_bound_are_read_from_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is bounded; the next page brings it."""
    monkeypatch.setattr(held_messages, "HELD_BYTES", 800)  # two messages, not three
    catch_up = CatchUp(START, START, START)
    catch_up.begin_page()
    for number in (1, 2, 3):
        catch_up.receive(message(number))
    assert catch_up.add_page([], more=False, known=True, tip="0-0") == []
    assert not catch_up.done
    assert catch_up.begin_page() == START
    catch_up.receive(message(4))
    steps = catch_up.add_page([message(1), message(2), message(3), message(4)], more=False, known=True, tip="4-0")
    assert ids(steps) == ["1-0", "2-0", "3-0", "4-0"]
    assert catch_up.done


class Channel(RuleBasedStateMachine):
    """A log, live delivery some time later, and a session that reads pages some time later."""

    @initialize(before=st.integers(0, 8), since=st.integers(0, 8), behind=st.integers(0, 8))
    def begin(self, before: int, since: int, behind: int) -> None:
        self.log = [message(number) for number in range(1, before + 1)]
        self.delivered = max(0, before - behind)
        """The number of the log's messages that were delivered live."""
        self.since = min(since, before)
        self.catch_up = CatchUp(f"{self.since}-0", f"{self.delivered}-0", f"{before}-0")
        self.page: tuple[list[Message], bool, str] | None = None
        self.received: list[Message] = []
        self.floor: str | None = None

    @rule(size=st.sampled_from([1, 200_000, held_messages.HELD_BYTES + 1]))
    def post(self, size: int) -> None:
        self.log.append(message(len(self.log) + 1, size))

    @precondition(lambda self: self.delivered < len(self.log))
    @rule()
    def deliver(self) -> None:
        live = self.log[self.delivered]
        self.delivered += 1
        if self.floor is None:
            self.catch_up.receive(live)
        elif order(live.id) > order(self.floor):
            self.received.append(live)

    @precondition(lambda self: self.floor is None and self.page is None)
    @rule(rows=st.integers(1, 4))
    def read(self, rows: int) -> None:
        after = order(self.catch_up.begin_page())
        rest = [each for each in self.log if order(each.id) > after]
        self.page = (rest[:rows], len(rest) > rows, f"{len(self.log)}-0")

    @precondition(lambda self: self.floor is None and self.page is not None)
    @rule()
    def take(self) -> None:
        assert self.page is not None
        rows, more, tip = self.page
        self.page = None
        for step in self.catch_up.add_page(rows, more=more, known=True, tip=tip):
            assert isinstance(step, Message), "nothing was lost"
            self.received.append(step)
        if self.catch_up.done:
            self.floor = self.catch_up.position

    @rule()
    def check(self) -> None:
        assert self.received == self.log[self.since : self.since + len(self.received)], (
            "a gap, a repeat or a wrong order"
        )
        assert self.catch_up.held_bytes <= held_messages.HELD_BYTES

    def teardown(self) -> None:
        if not hasattr(self, "log"):
            return
        for _ in range(200):
            if self.floor is not None:
                break
            if self.page is None:
                self.read(4)
            self.take()
        assert self.floor is not None, "it never ends"
        while self.delivered < len(self.log):
            self.deliver()
        assert self.received == self.log[self.since :]


TestChannel = Channel.TestCase
TestChannel.settings = settings(stateful_step_count=40)


@given(st.integers(0, 5), st.integers(0, 5))
def test_nothing_to_catch_up_with_is_live_at_once(since: int, live_from: int) -> None:
    """One page, whatever its content, if nothing comes in between."""
    catch_up = CatchUp(f"{since}-0", f"{live_from}-0", f"{max(since, live_from)}-0")
    catch_up.begin_page()
    rows = [message(number) for number in range(since + 1, live_from + 1)]
    assert catch_up.add_page(rows, more=False, known=True, tip=f"{max(since, live_from)}-0") == rows
    assert catch_up.done
