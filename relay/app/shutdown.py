"""A process's shutdown: the first request starts a drain, a second one ends the process without it."""

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

ONE_SIGNAL_SECONDS = 0.5
"""Signals this close together count as one: Ctrl-C reaches every process of a terminal, and some pass it on as well."""
_GRACE_SECONDS = 1.0


class Shutdown:
    """The state of a shutdown, and waits that a forced shutdown cuts short."""

    def __init__(self) -> None:
        self.requested = asyncio.Event()
        self.forced = asyncio.Event()
        """Set once the process has to end without a drain; `requested` is set then, too."""
        self._requested_at: float | None = None

    def request(self) -> None:
        """Request a shutdown. A second request forces it, unless it belongs to the same signal."""
        now = asyncio.get_running_loop().time()
        if self._requested_at is None:
            self._requested_at = now
            self.requested.set()
        elif now - self._requested_at > ONE_SIGNAL_SECONDS:
            self.forced.set()

    def force(self) -> None:
        """Request a shutdown without a drain."""
        self.requested.set()
        self.forced.set()

    async def pause(self, seconds: float) -> None:
        """Sleep for `seconds`, or until the shutdown is forced."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.forced.wait()

    async def wait_for(self, ending: Coroutine[Any, Any, None], seconds: float) -> None:
        """Run `ending` for at most `seconds`; after the shutdown is forced, for at most one more second.

        Work that exceeds its time is cancelled, and abandoned if it does not end within another second.
        Raises what `ending` raises.
        """
        task, forced = asyncio.ensure_future(ending), asyncio.ensure_future(self.forced.wait())
        try:
            await asyncio.wait((task, forced), timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            if forced.done() and not task.done():
                await asyncio.wait((task,), timeout=min(seconds, _GRACE_SECONDS))
        finally:
            forced.cancel()
            task.cancel()
        await asyncio.wait((task,), timeout=_GRACE_SECONDS)
        if task.done() and not task.cancelled():
            task.result()
