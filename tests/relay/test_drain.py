"""How sessions are spread over the time that a drain has."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.app.drain import pace
from relay.app.shutdown import ONE_SIGNAL_SECONDS, Shutdown
from tests.support.waiting import pause


def plan(sessions: int, seconds: float) -> list[tuple[float, int]]:
    """When how many are closed, if nobody leaves by themselves."""
    now, steps = 0.0, []
    while sessions:
        batch, wait = pace(sessions, seconds - now)
        steps.append((now, batch))
        sessions -= batch
        now += wait
    return steps


@given(st.integers(0, 20_000), st.floats(0, 3600))
def test_all_are_closed_in_time(sessions: int, seconds: float) -> None:
    """Whoever is left at the end is cut off by the kill."""
    steps = plan(sessions, seconds)
    assert sum(batch for _, batch in steps) == sessions
    assert all(batch > 0 for _, batch in steps)
    assert all(at <= seconds for at, _ in steps)


@given(st.integers(2, 20_000), st.floats(1, 3600), st.floats(0, 1))
def test_they_are_spread_evenly(sessions: int, seconds: float, share: float) -> None:
    """At any moment as many are gone as there should be, but for what goes in a twentieth of a second."""
    gone = sum(batch for at, batch in plan(sessions, seconds) if at <= seconds * share)
    step = 1 + sessions * 0.05 / seconds
    assert abs(gone - sessions * share) <= 2 * step


def test_few_sessions_are_spread_as_well() -> None:
    """Two do not leave together because they are only two."""
    assert plan(4, 20) == [(0, 1), (5, 1), (10, 1), (15, 1)]
    assert plan(1, 20) == [(0, 1)]
    assert plan(0, 20) == []


async def test_a_signal_that_comes_twice_at_once_is_one() -> None:
    """Ctrl-C reaches a whole terminal, and `make`, which has it too, passes it on."""
    stop = Shutdown()
    stop.ask()
    stop.ask()
    assert stop.asked.is_set()
    assert not stop.hurried.is_set()
    await pause(ONE_SIGNAL_SECONDS * 1.1)
    stop.ask()
    assert stop.hurried.is_set()


async def test_a_hurry_ends_every_wait() -> None:
    """Whoever asks a second time does not want to know what there was to wait for."""
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
        assert not stop.asked.is_set()
        stop.hurry()
        await waiting
    assert stop.asked.is_set(), "a hurry is a stop"


async def test_what_ends_in_time_is_waited_for() -> None:
    """Goodbyes that are under way are not cut, and what goes wrong with them is not hidden."""
    stop = Shutdown()
    said: list[str] = []

    async def goodbye() -> None:
        await pause(0.05)
        said.append("goodbye")

    async def failing() -> None:
        raise ValueError("this")

    stop.hurry()
    await stop.wait_for(goodbye(), 10)
    assert said == ["goodbye"]
    with pytest.raises(ValueError, match="this"):
        await stop.wait_for(failing(), 10)
