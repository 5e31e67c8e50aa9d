"""From the log into live delivery: any interleaving of posts, pages, overflows and a failover, and nothing is amiss."""

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
    """Messages in between are delivered behind it, once."""
    listener = CatchUp("1-0", "3-0", "3-0")
    assert listener.begin_page() == "1-0"
    listener.receive(message(4))
    listener.receive(message(5))
    steps = listener.add_page([message(2), message(3), message(4)], more=False, known=True, tip="4-0")
    assert ids(steps) == ["2-0", "3-0", "4-0", "5-0"]
    assert listener.done
    assert listener.position == "5-0"


def test_who_is_ahead_of_the_room_is_live_at_once() -> None:
    """The log was faster than live delivery: what the room hands out later, up to there, is known already."""
    listener = CatchUp("7-0", "5-0", "7-0")
    listener.begin_page()
    assert listener.add_page([], more=False, known=True, tip="7-0") == []
    assert listener.done
    assert listener.position == "7-0"


def test_what_was_trimmed_is_told_before_the_rest() -> None:
    """The hole is where it is."""
    listener = CatchUp("1-0", "9-0", "9-0")
    listener.begin_page()
    steps = listener.add_page([message(8), message(9)], more=False, known=False, tip="9-0")
    assert ids(steps) == ["lost after 1-0", "8-0", "9-0"]
    assert listener.done


def test_what_a_failover_lost_is_told_after_the_rest() -> None:
    """The room has handed out what the log no longer has: the listener never gets it, and knows."""
    listener = CatchUp("1-0", "5-0", "5-0")
    listener.begin_page()
    listener.receive(message(6))
    steps = listener.add_page([message(2), message(3)], more=False, known=True, tip="3-0")
    assert ids(steps) == ["2-0", "3-0", "lost after 3-0", "6-0"]
    assert listener.done


@pytest.mark.parametrize("when", ["while a page is on its way", "between two pages"])
def test_what_a_failover_lost_before_the_last_page_is_told(when: str) -> None:
    """Such a message is not held for the join: the log had it when it was delivered, and was to bring it."""
    listener = CatchUp("1-0", "5-0", "5-0")
    listener.begin_page()
    if when == "while a page is on its way":
        listener.receive(message(6))
    assert ids(listener.add_page([message(2)], more=True, known=True, tip="6-0")) == ["2-0"]
    if when == "between two pages":
        listener.receive(message(6))
    listener.begin_page()
    steps = listener.add_page([message(number) for number in (3, 4, 5)], more=False, known=True, tip="5-0")
    assert ids(steps) == ["3-0", "4-0", "5-0", "lost after 5-0"]
    assert listener.done


def test_a_position_that_a_failover_lost_is_told_once() -> None:
    """And the listener goes on at the log's end, not behind it."""
    listener = CatchUp("8-0", "8-0", "8-0")
    listener.begin_page()
    listener.receive(message(9))
    assert ids(listener.add_page([], more=False, known=False, tip="3-0")) == ["lost after 8-0", "9-0"]
    assert listener.done


def test_what_follows_the_join_is_due_to_whoever_names_a_position_that_is_yet_to_come() -> None:
    """The position is of no use, but the reply to the join has promised everything after the log's tip of then."""
    listener = CatchUp("9-0", "1-0", "1-0")
    assert listener.begin_page() == "1-0"
    listener.receive(message(2))
    listener.receive(message(3))
    steps = listener.add_page([message(2)], more=False, known=True, tip="2-0")
    assert ids(steps) == ["lost after 9-0", "2-0", "3-0"]
    assert listener.done
    assert listener.position == "3-0"


def test_a_position_that_is_yet_to_come_leads_to_live_delivery_at_once() -> None:
    """Nothing was said since: what comes live is next, however far before that position."""
    listener = CatchUp("9-0", "1-0", "1-0")
    listener.begin_page()
    assert ids(listener.add_page([], more=False, known=True, tip="1-0")) == ["lost after 9-0"]
    assert listener.done
    assert listener.position == "1-0"


def test_more_than_may_be_kept_is_read_from_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is bounded; the next page brings it."""
    monkeypatch.setattr(held_messages, "HELD_BYTES", 800)  # two messages, not three
    listener = CatchUp(START, START, START)
    listener.begin_page()
    for number in (1, 2, 3):
        listener.receive(message(number))
    assert listener.add_page([], more=False, known=True, tip="0-0") == []
    assert not listener.done
    assert listener.begin_page() == START
    listener.receive(message(4))
    steps = listener.add_page([message(1), message(2), message(3), message(4)], more=False, known=True, tip="4-0")
    assert ids(steps) == ["1-0", "2-0", "3-0", "4-0"]
    assert listener.done


class Channel(RuleBasedStateMachine):
    """A log, a room that hands out its messages some time later, and a listener that reads pages some time later."""

    @initialize(before=st.integers(0, 8), since=st.integers(0, 8), behind=st.integers(0, 8))
    def begin(self, before: int, since: int, behind: int) -> None:
        self.log = [message(number) for number in range(1, before + 1)]
        self.delivered = max(0, before - behind)
        """How many of the log's messages the room has handed out."""
        self.since = min(since, before)
        self.listener = CatchUp(f"{self.since}-0", f"{self.delivered}-0", f"{before}-0")
        self.page: tuple[list[Message], bool, str] | None = None
        self.got: list[Message] = []
        self.floor: str | None = None

    @rule(size=st.sampled_from([1, 200_000, held_messages.HELD_BYTES + 1]))
    def post(self, size: int) -> None:
        self.log.append(message(len(self.log) + 1, size))

    @precondition(lambda self: self.delivered < len(self.log))
    @rule()
    def deliver(self) -> None:
        said = self.log[self.delivered]
        self.delivered += 1
        if self.floor is None:
            self.listener.receive(said)
        elif order(said.id) > order(self.floor):
            self.got.append(said)

    @precondition(lambda self: self.floor is None and self.page is None)
    @rule(rows=st.integers(1, 4))
    def read(self, rows: int) -> None:
        after = order(self.listener.begin_page())
        rest = [said for said in self.log if order(said.id) > after]
        self.page = (rest[:rows], len(rest) > rows, f"{len(self.log)}-0")

    @precondition(lambda self: self.floor is None and self.page is not None)
    @rule()
    def take(self) -> None:
        assert self.page is not None
        rows, more, tip = self.page
        self.page = None
        for step in self.listener.add_page(rows, more=more, known=True, tip=tip):
            assert isinstance(step, Message), "nothing was lost"
            self.got.append(step)
        if self.listener.done:
            self.floor = self.listener.position

    @rule()
    def check(self) -> None:
        assert self.got == self.log[self.since : self.since + len(self.got)], "a hole, a repeat, or another order"
        assert self.listener.held_bytes <= held_messages.HELD_BYTES

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
        assert self.got == self.log[self.since :]


TestChannel = Channel.TestCase
TestChannel.settings = settings(stateful_step_count=40)


@given(st.integers(0, 5), st.integers(0, 5))
def test_nothing_to_catch_up_with_is_live_at_once(since: int, live_from: int) -> None:
    """One page, whatever it says, if nothing comes in between."""
    listener = CatchUp(f"{since}-0", f"{live_from}-0", f"{max(since, live_from)}-0")
    listener.begin_page()
    rows = [message(number) for number in range(since + 1, live_from + 1)]
    assert listener.add_page(rows, more=False, known=True, tip=f"{max(since, live_from)}-0") == rows
    assert listener.done
