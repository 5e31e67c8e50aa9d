"""How the sessions of a node that stops are closed: evenly over a time, so that other nodes get them one by one."""

import asyncio
import math

from relay.app.shutdown import Shutdown
from relay.model.close_reason import CloseReason
from relay.sessions.registry import SessionRegistry

_STEP_SECONDS = 0.05


def pace(sessions: int, seconds: float) -> tuple[int, float]:
    """Return how many of so many sessions to close now, if all have so many seconds, and when to ask again."""
    if seconds <= _STEP_SECONDS or sessions <= 1:
        return sessions, 0.0
    batch = math.ceil(sessions * _STEP_SECONDS / seconds)
    return batch, seconds * batch / sessions


async def close_evenly(sessions: SessionRegistry, seconds: float, stop: Shutdown) -> None:
    """Tell every session to close within `seconds`, the one that came first first; all the rest once there is a hurry.

    Whoever logs in meanwhile is among them, and who comes later is closed at once. With nobody there nothing is waited
    for, and the last one's share of the time is not waited for either.
    """
    clock = asyncio.get_running_loop().time
    ends_at = clock() + seconds
    while not stop.hurried.is_set():
        staying = [session for session in sessions if session.close_reason is None]
        batch, wait = pace(len(staying), ends_at - clock())
        if batch == len(staying):
            break
        for session in staying[:batch]:
            session.close(CloseReason.SHUTDOWN)
        await stop.pause(wait)
    sessions.close_all(CloseReason.SHUTDOWN)
