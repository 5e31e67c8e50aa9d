"""Waiting before the next attempt."""

from hypothesis import given
from hypothesis import strategies as st

from conclave.backoff import Backoff


def longest(_low: float, high: float) -> float:
    return high


def test_waits_double_up_to_the_longest_until_a_success_resets_them() -> None:
    """A dead server is not hammered, and a short outage after a long one costs a short wait."""
    backoff = Backoff(first=1, longest=30, draw=longest)
    assert [backoff.wait() for _ in range(7)] == [1, 2, 4, 8, 16, 30, 30]
    backoff.reset()
    assert backoff.wait() == 1


@given(st.integers(min_value=1, max_value=50))
def test_every_wait_is_drawn_from_the_upper_half(attempts: int) -> None:
    """Clients that lost one server together come back apart, and none at once."""
    backoff, ceiling = Backoff(first=1, longest=30), Backoff(first=1, longest=30, draw=longest)
    for _ in range(attempts):
        assert (top := ceiling.wait()) / 2 <= backoff.wait() <= top
