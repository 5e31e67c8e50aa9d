"""The workers of a forked relay are forked from it: an interpreter for each would import what the relay has already.

A forked worker is a process as `relay.workers.worker_process` starts it: it has its own id and session, its link as
standard input, and the sockets. It differs in what it inherits: the imported modules, and the command line that /proc
shows, so its name there is `WORKER_NAME`.
"""

import asyncio
import contextvars
import gc
import os
import signal
import socket
import sys
from pathlib import Path
from typing import NoReturn

from relay.workers import child, worker_process
from tests.support.fork_server import end_child

WORKER_NAME = "forked-worker"


class ForkedWorker:
    """A worker, with what its parent uses of `asyncio.subprocess.Process`."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._ended = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._descriptor = os.pidfd_open(pid)
        self._loop.add_reader(self._descriptor, self._reap)

    def _reap(self) -> None:
        self._loop.remove_reader(self._descriptor)
        os.close(self._descriptor)
        self.returncode = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        self._ended.set()

    async def wait(self) -> int:
        """Wait for its end; return its exit code, negative for a signal."""
        await self._ended.wait()
        assert self.returncode is not None
        return self.returncode


def fork_workers() -> None:
    """Have the workers of this process forked from now on."""
    worker_process._spawn = _spawn  # type: ignore[assignment]


async def _spawn(link: socket.socket, inherited: list[int]) -> ForkedWorker:
    pid = os.fork()
    if pid == 0:
        _become(link.fileno(), inherited)
    return ForkedWorker(pid)


def _become(link: int, inherited: list[int]) -> NoReturn:
    """In a child: leave what is the parent's, its event loop above all, and be a worker."""
    gc.freeze()
    asyncio._set_running_loop(None)
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    os.setsid()
    os.dup2(link, 0)
    kept = sorted({2, *inherited})
    for one, next_one in zip(kept, [*kept[1:], os.sysconf("SC_OPEN_MAX")], strict=True):
        os.closerange(one + 1, next_one)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    Path("/proc/self/comm").write_text(WORKER_NAME)
    end_child(contextvars.Context().run(child.main))
