"""The estimate of Redis' clock, and the bound that a former clock sets to the ids of new messages."""

import time

import pytest

from relay.redis.clock import RedisClock


def record(estimate: RedisClock, ahead: float, *, latest: float = 0) -> None:
    """Record a reply without a round trip, of a clock that is so many seconds ahead of this machine's."""
    now = time.monotonic()
    estimate.record(int((now + ahead) * 1000), now, now, latest_ms=(now + latest) * 1000)


def bound(estimate: RedisClock) -> float:
    """Return by how many seconds the bound is ahead of this machine's clock; 0 if there is none."""
    return estimate.not_before() and estimate.not_before() / 1000 - time.monotonic()


def test_no_message_is_bounded_while_one_server_answers() -> None:
    """Each bound costs a step more in the script of a post."""
    estimate = RedisClock()
    assert bound(estimate) == 0
    record(estimate, 1000)
    record(estimate, 1000)
    assert bound(estimate) == 0


def test_after_an_interruption_the_former_clock_counts_until_the_present_one_is_known() -> None:
    """Posts go to the new server before the first heartbeat does."""
    estimate = RedisClock()
    record(estimate, 1000)
    estimate.forget()
    assert bound(estimate) == pytest.approx(1000, abs=1)
    record(estimate, 1000.01)
    assert bound(estimate) == 0


def test_a_clock_that_is_behind_is_bounded_by_the_former_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """For as long as nodes may come back that have seen what the new server lost."""
    estimate = RedisClock()
    record(estimate, 1000)
    estimate.forget()
    record(estimate, 970)
    estimate.forget()
    record(estimate, 970)
    assert bound(estimate) == pytest.approx(1000, abs=1)
    later = time.monotonic() + 61
    monkeypatch.setattr(time, "monotonic", lambda: later)
    assert bound(estimate) == 0


def test_a_former_clock_that_was_wrong_by_far_is_no_bound() -> None:
    """Ids would be in the future for as long."""
    estimate = RedisClock()
    record(estimate, 10_000)
    estimate.forget()
    record(estimate, 1000)
    assert bound(estimate) == 0


def test_a_node_that_starts_knows_the_former_clock_by_the_heartbeats() -> None:
    """Those of the other nodes are replicated, and later than the present."""
    estimate = RedisClock()
    record(estimate, 1000, latest=999.9)
    assert bound(estimate) == 0
    record(estimate, 970, latest=1000)
    assert bound(estimate) == pytest.approx(1010, abs=1)
