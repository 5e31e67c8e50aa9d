"""Restarts of a process that dies: spaced out, reset by a steady life, and given up on where that is wanted."""

from conclave.backoff import Backoff
from relay.processes.restart_policy import RestartPolicy


def policy(*, give_up_after: int | None = None) -> RestartPolicy:
    backoff = Backoff(0.1, 0.5, draw=lambda _, longest: longest)
    return RestartPolicy(backoff, steady_seconds=60, give_up_after=give_up_after)


def test_waits_grow_with_quick_deaths_and_start_again_after_a_steady_life() -> None:
    """A process that dies on start is not started in a loop, and one that dies once a day comes back fast."""
    restarts = policy()
    assert [restarts.died(lived) for lived in (60, 0, 59.9, 1, 0)] == [0.1, 0.2, 0.4, 0.5, 0.5]
    assert restarts.deaths == 5
    assert [restarts.died(lived) for lived in (60, 0)] == [0.1, 0.2]
    assert restarts.deaths == 2


def test_deaths_in_a_row_are_hopeless_in_the_end() -> None:
    """The operator has to see the failure, not a relay that restarts its store for ever."""
    restarts = policy(give_up_after=2)
    assert [restarts.died(0) for _ in range(3)] == [0.1, 0.2, None]
    assert policy(give_up_after=2).died(0) is not None
    assert restarts.died(60) is not None, "a steady life ends the row"
