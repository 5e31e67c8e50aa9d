"""The end of a process that was asked for: once to drain, a second time at once."""

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

ONE_SIGNAL_SECONDS = 0.5
"""Signals so close are one: Ctrl-C reaches a whole terminal, and then whoever started us passes it on as well."""
_LAST_WORDS_SECONDS = 1.0


class Shutdown:
    """What was asked for, and waits that take it into account."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.hurried = asyncio.Event()
        """Whether the end shall come at once; `asked` is set then, too."""
        self._asked_at: float | None = None

    def ask(self) -> None:
        """Ask for the end; the second time, unless it is so soon that it is the same signal, at once."""
        now = asyncio.get_running_loop().time()
        if self._asked_at is None:
            self._asked_at = now
            self.asked.set()
        elif now - self._asked_at > ONE_SIGNAL_SECONDS:
            self.hurried.set()

    def hurry(self) -> None:
        """Ask for the end at once."""
        self.asked.set()
        self.hurried.set()

    async def pause(self, seconds: float) -> None:
        """Let time pass, or none any more once there is a hurry."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.hurried.wait()

    async def wait_for(self, ending: Coroutine[Any, Any, None], seconds: float) -> None:
        """Wait for something that ends, for so long at most; one second more at most once there is a hurry.

        What has not ended then is cancelled, and left alone if it takes more than a second even so.
        """
        task, hurry = asyncio.ensure_future(ending), asyncio.ensure_future(self.hurried.wait())
        try:
            await asyncio.wait((task, hurry), timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            if hurry.done() and not task.done():
                await asyncio.wait((task,), timeout=min(seconds, _LAST_WORDS_SECONDS))
        finally:
            hurry.cancel()
            task.cancel()
        await asyncio.wait((task,), timeout=_LAST_WORDS_SECONDS)
        if task.done() and not task.cancelled():
            task.result()
