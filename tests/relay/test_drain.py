"""A drain closes its sessions evenly, and a forced shutdown cuts it short."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.app.drain import next_batch
from relay.app.shutdown import ONE_SIGNAL_SECONDS, Shutdown
from tests.support.waiting import pause


def plan(sessions: int, seconds: float) -> list[tuple[float, int]]:
    """Return the times and sizes of the batches if no session leaves on its own."""
    now, steps = 0.0, []
    while sessions:
        batch, wait = next_batch(sessions, seconds - now)
        steps.append((now, batch))
        sessions -= batch
        now += wait
    return steps


@given(st.integers(0, 20_000), st.floats(0, 3600))
def test_all_are_closed_in_time(sessions: int, seconds: float) -> None:
    """A session that is still open at the end is cut by the kill."""
    steps = plan(sessions, seconds)
    assert sum(batch for _, batch in steps) == sessions
    assert all(batch > 0 for _, batch in steps)
    assert all(at <= seconds for at, _ in steps)


@given(st.integers(2, 20_000), st.floats(1, 3600), st.floats(0, 1))
def test_they_are_spread_evenly(sessions: int, seconds: float, share: float) -> None:
    """At any moment the number of closed sessions is as planned, but for those of a twentieth of a second."""
    gone = sum(batch for at, batch in plan(sessions, seconds) if at <= seconds * share)
    step = 1 + sessions * 0.05 / seconds
    assert abs(gone - sessions * share) <= 2 * step


def test_few_sessions_are_spread_as_well() -> None:
    """Two do not leave together because they are only two."""
    assert plan(4, 20) == [(0, 1), (5, 1), (10, 1), (15, 1)]
    assert plan(1, 20) == [(0, 1)]
    assert plan(0, 20) == []


async def test_the_same_signal_from_two_senders_is_one_request() -> None:
    """Ctrl-C reaches a whole terminal, and `make`, which has it too, passes it on."""
    stop = Shutdown()
    stop.request()
    stop.request()
    assert stop.requested.is_set()
    assert not stop.forced.is_set()
    await pause(ONE_SIGNAL_SECONDS * 1.1)
    stop.request()
    assert stop.forced.is_set()


async def test_a_forced_shutdown_ends_every_wait() -> None:
    """A second signal means that the operator does not want to wait."""
    stop = Shutdown()
    never = asyncio.Event()

    async def forever() -> None:
        await never.wait()

    async def wait() -> None:
        await stop.pause(3600)
        await stop.wait_for(forever(), 3600)

    async with asyncio.timeout(10):
        waiting = asyncio.create_task(wait())
        await pause(0)
        assert not stop.requested.is_set()
        stop.force()
        await waiting
    assert stop.requested.is_set(), "a forced shutdown is a shutdown"


async def test_what_ends_in_time_is_waited_for() -> None:
    """Closes that are under way are not cut, and their errors are not hidden."""
    stop = Shutdown()
    said: list[str] = []

    async def close() -> None:
        await pause(0.05)
        said.append("goodbye")

    async def failing() -> None:
        raise ValueError("this")

    stop.force()
    await stop.wait_for(close(), 10)
    assert said == ["goodbye"]
    with pytest.raises(ValueError, match="this"):
        await stop.wait_for(failing(), 10)
