"""Blocking reads and writes of descriptors in threads.

This works for pipes, sockets, terminals, files and /dev/null alike, and no descriptor that other processes share is
switched to non-blocking.
"""

import asyncio
import fcntl
import os
import select
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from queue import SimpleQueue
from typing import Any, Final, TypeVar

from conclave.errors import ConclaveError

CHUNK_BYTES: Final = 64 * 1024
"""The greatest number of bytes of one read."""

T = TypeVar("T")


class BlockingThread:
    """A thread that runs blocking calls one by one. Unlike an executor's, it does not delay the end of the process."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._work: SimpleQueue[tuple[Callable[[], Any], asyncio.Future[Any]] | None] = SimpleQueue()
        threading.Thread(target=self._run, name=name, daemon=True).start()

    async def call(self, function: Callable[[], T]) -> T:
        """Run the function in the thread. If the call is cancelled, the function runs on and its result is lost."""
        future: asyncio.Future[T] = self._loop.create_future()
        self._work.put((function, future))
        return await future

    def close(self) -> None:
        """End the thread after its present call."""
        self._work.put(None)

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            function, future = work
            try:
                outcome = partial(future.set_result, function())
            except Exception as error:  # noqa: BLE001 - it is raised where the call was made
                outcome = partial(future.set_exception, error)
            with suppress(RuntimeError):  # the loop is closed, so no caller waits
                self._loop.call_soon_threadsafe(_settle, future, outcome)


def _settle(future: "asyncio.Future[Any]", outcome: Callable[[], None]) -> None:
    if not future.done():
        outcome()


def read(descriptor: int) -> bytes:
    """Wait for up to `CHUNK_BYTES` bytes and return them; none at the end of the stream.

    Raises:
        OSError: if it cannot be read.
    """
    while True:
        try:
            return os.read(descriptor, CHUNK_BYTES)
        except BlockingIOError:  # a process that shares it made it non-blocking
            _await(descriptor, select.POLLIN)


def write(descriptor: int, piece: memoryview) -> int:
    """Wait until some of the bytes are written, and return their number.

    Raises:
        OSError: if it cannot be written; BrokenPipeError if the reader is gone.
    """
    while True:
        try:
            return os.write(descriptor, piece)
        except BlockingIOError:
            _await(descriptor, select.POLLOUT)


def _await(descriptor: int, event: int) -> None:
    poll = select.poll()
    poll.register(descriptor, event)
    poll.poll()


def take_stdio() -> tuple[int, int]:
    """Return stdin and stdout under new numbers; the old numbers become /dev/null and stderr.

    Raises:
        ConclaveError: if one of them is closed.
    """
    try:
        source, sink = (fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, 3) for number in (0, 1))
    except OSError:
        raise ConclaveError("MCP needs both stdin and stdout, and one of them is closed") from None
    null = os.open(os.devnull, os.O_RDWR)  # becomes number 2 where there is no stderr
    os.dup2(null, 0)
    os.dup2(2, 1)
    return source, sink
