"""How late the event loop is: what a node that is short of CPU shows first."""

import asyncio
import time

from relay.observability.metrics.instruments import Histogram

_EVERY_SECONDS = 0.5


async def watch_lag(lag: Histogram) -> None:
    """Sleep, and observe how much longer that took than it should have, in seconds; until cancelled."""
    while True:
        lain_down = time.monotonic()
        await asyncio.sleep(_EVERY_SECONDS)
        lag.observe(max(0.0, time.monotonic() - lain_down - _EVERY_SECONDS))
