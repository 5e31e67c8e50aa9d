"""Work that goes on until somebody ends the program."""

import asyncio
import signal
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Ctrl-C, a service manager, a terminal that was closed."""


async def until_signalled(work: Coroutine[Any, Any, None], stopping: Callable[[], None] = lambda: None) -> None:
    """Run `work` until it ends, or until one of the signals comes: then it is cancelled, and has cleaned up at return.

    `stopping` is called before that. Further signals change nothing. What the work raises is raised here.
    """
    signalled = asyncio.Event()
    for number in ENDING:
        asyncio.get_running_loop().add_signal_handler(number, signalled.set)
    waiting = asyncio.create_task(signalled.wait())
    task = asyncio.create_task(work)
    await asyncio.wait([task, waiting], return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    if signalled.is_set():
        stopping()
        task.cancel()
    with suppress(asyncio.CancelledError):
        await task
