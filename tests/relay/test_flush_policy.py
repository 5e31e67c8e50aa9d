"""The time of the next flush: it waits where that joins frames, and nobody waits for more than the bound."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.sessions.outbox import FlushPolicy

SECONDS = st.floats(0, 1)
COUNTS = st.integers(0, 1000)


@pytest.mark.parametrize(
    ("took", "since", "delay"),
    [
        (0.000_010, 0.0001, 0),
        (0.001, 0.004, 0),
        (0.001, 0.001, 0.003),
        (0.001, 0, 0.004),
        (0.1, 0, 0.01),
        (0.1, 0.007, 0.003),
        (0.1, 0.01, 0),
    ],
    ids=[
        "few sessions",
        "long ago",
        "a little ago",
        "just now",
        "at the bound",
        "at the bound, later",
        "after the bound",
    ],
)
def test_after_a_flush_that_joined_frames_the_next_one_waits(took: float, since: float, delay: float) -> None:
    """A burst to many sessions gathers: a multiple of the time that its writes take, and no more than the bound."""
    policy = FlushPolicy(0.01)
    policy.record(100, 100 + took, frames=400, writes=200)
    assert policy.delay(100 + took + since) == pytest.approx(delay)


@pytest.mark.parametrize(("frames", "writes"), [(1, 1), (200, 200), (399, 200), (201, 200)])
def test_after_a_flush_that_joined_next_to_nothing_the_next_one_does_not_wait(frames: int, writes: int) -> None:
    """The next message may depend on this one: then waiting joins nothing, and only delays the conversation."""
    policy = FlushPolicy(0.01)
    policy.record(100, 100.003, frames=400, writes=200)
    assert policy.delay(100.003) > 0
    policy.record(101, 101.003, frames=frames, writes=writes)
    assert policy.delay(101.003) == 0


def test_the_first_event_of_a_node_does_not_wait() -> None:
    """There is no load before the first flush."""
    assert FlushPolicy(0.01).delay(0) == 0


@given(st.lists(st.tuples(SECONDS, SECONDS, COUNTS, COUNTS), min_size=1), SECONDS)
def test_no_event_waits_for_longer_than_the_bound(flushes: list[tuple[float, float, int, int]], bound: float) -> None:
    """The bound is what an operator chose, whatever the load; 0 has every tick flush."""
    policy, now = FlushPolicy(bound), 0.0
    for pause, took, frames, writes in flushes:
        now += pause
        policy.record(now, now + took, frames=frames, writes=writes)
        now += took
        assert 0 <= policy.delay(now) <= bound + 1e-9
        assert policy.delay(now + bound + 1e-9) == 0
