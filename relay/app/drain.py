"""A drain: the sessions of a stopping node are closed evenly over a time, so that other nodes get them gradually."""

import asyncio
import math

from relay.app.shutdown import Shutdown
from relay.model.close_reason import CloseReason
from relay.sessions.registry import SessionRegistry

_STEP_SECONDS = 0.05


def next_batch(sessions: int, seconds: float) -> tuple[int, float]:
    """Return how many of `sessions` to close now, and the seconds until the next batch.

    All of them are closed within `seconds`. Batches are at least 50 ms apart.
    """
    if seconds <= _STEP_SECONDS or sessions <= 1:
        return sessions, 0.0
    batch = math.ceil(sessions * _STEP_SECONDS / seconds)
    return batch, seconds * batch / sessions


async def close_evenly(sessions: SessionRegistry, seconds: float, shutdown: Shutdown) -> None:
    """Close every session within `seconds`, the oldest first, and all remaining ones when the shutdown is forced.

    Sessions that log in meanwhile are included; later ones are closed immediately. The call returns as soon as the
    last session is told to close.
    """
    clock = asyncio.get_running_loop().time
    ends_at = clock() + seconds
    while not shutdown.forced.is_set():
        open_sessions = [session for session in sessions if session.close_reason is None]
        batch, wait = next_batch(len(open_sessions), ends_at - clock())
        if batch == len(open_sessions):
            break
        for session in open_sessions[:batch]:
            session.close(CloseReason.SHUTDOWN)
        await shutdown.pause(wait)
    sessions.close_all(CloseReason.SHUTDOWN)
