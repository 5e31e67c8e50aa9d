"""The end of a child process that was told to stop."""

import asyncio

_KILL_SECONDS = 2.0


async def end_within(process: asyncio.subprocess.Process, seconds: float) -> bool:
    """Wait for `process` to end; after `seconds`, send SIGKILL. Returns whether it ended without that.

    The wait after SIGKILL is bounded, too: a grandchild may still hold the pipes that asyncio waits for.
    """
    try:
        async with asyncio.timeout(seconds):
            await process.wait()
    except TimeoutError:
        process.kill()
        try:
            async with asyncio.timeout(_KILL_SECONDS):
                await process.wait()
        except TimeoutError:
            pass
        return False
    return True
