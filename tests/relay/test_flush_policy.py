"""The time of the next flush: idle nodes write immediately, busy ones gather, nobody waits for more than the bound."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.sessions.flush_policy import FlushPolicy

SECONDS = st.floats(0, 1)


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
        "two agents",
        "long ago",
        "a little ago",
        "just now",
        "at the bound",
        "at the bound, later",
        "after the bound",
    ],
)
def test_a_flush_follows_after_a_multiple_of_the_last_one(took: float, since: float, delay: float) -> None:
    """Two agents that answer each other never wait; a fan-out to many gathers."""
    policy = FlushPolicy(0.01)
    policy.record(100, 100 + took)
    assert policy.delay(100 + took + since) == pytest.approx(delay)


def test_the_first_event_of_a_node_does_not_wait() -> None:
    """There is no load before the first flush."""
    assert FlushPolicy(0.01).delay(0) == 0


@given(st.lists(st.tuples(SECONDS, SECONDS), min_size=1), SECONDS)
def test_no_event_waits_for_longer_than_the_bound(flushes: list[tuple[float, float]], bound: float) -> None:
    """The bound is what an operator chose, whatever the load; 0 has every tick flush."""
    policy, now = FlushPolicy(bound), 0.0
    for pause, took in flushes:
        now += pause
        policy.record(now, now + took)
        now += took
        assert 0 <= policy.delay(now) <= bound + 1e-9
        assert policy.delay(now + bound + 1e-9) == 0
