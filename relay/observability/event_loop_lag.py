"""The lag of the event loop: the first symptom of a node that is short of CPU."""

import asyncio
import time

from prometheus_client import Histogram

_EVERY_SECONDS = 0.5


async def watch_lag(lag: Histogram) -> None:
    """Observe twice a second how many seconds late a sleep ends, until cancelled."""
    while True:
        slept_at = time.monotonic()
        await asyncio.sleep(_EVERY_SECONDS)
        lag.observe(max(0.0, time.monotonic() - slept_at - _EVERY_SECONDS))
