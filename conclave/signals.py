"""Work that runs until a signal ends the program."""

import asyncio
import signal
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Ctrl-C, a service manager, a closed terminal."""


async def until_signalled(work: Coroutine[Any, Any, None], stopping: Callable[[], None] = lambda: None) -> None:
    """Run `work` until it ends or a signal comes; then it is cancelled, and its cleanup is over when this returns.

    `stopping` is called before the cancellation. Further signals change nothing. Exceptions of `work` are raised here.
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
