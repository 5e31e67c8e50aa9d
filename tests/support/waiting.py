"""The only place where a test sleeps."""

import asyncio
import inspect
from collections.abc import Callable

FIRST_PAUSE = 0.002
LONGEST_PAUSE = 0.05


async def wait_until(
    predicate: Callable[[], object],
    *,
    timeout: float = 30,  # noqa: ASYNC109 - the failure must say what was waited for
    what: str = "the condition holds",
) -> None:
    """Poll until the predicate, plain or async, is true; AssertionError with `what` after `timeout` seconds."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout
    pause = FIRST_PAUSE
    while not await _evaluate(predicate):
        if loop.time() > deadline:
            raise AssertionError(f"waited {timeout} s in vain: {what}")
        await asyncio.sleep(pause)
        pause = min(pause * 1.5, LONGEST_PAUSE)


async def pause(seconds: float) -> None:
    """Let time pass where the duration itself is what is tested, such as Redis being away for two seconds."""
    await asyncio.sleep(seconds)


async def _evaluate(predicate: Callable[[], object]) -> bool:
    answer = predicate()
    return bool(await answer if inspect.isawaitable(answer) else answer)
