"""A worker as its parent sees it: one process at a time, each with a link of its own."""

import asyncio
import os
import pickle
import signal
import socket
import sys
from collections.abc import Awaitable, Callable

import structlog

from relay.app.config import NodeConfig
from relay.workers.ipc import WORKER_SECONDS, Assignment, Failed, ForceStop, IpcLink, Listening, Ready, Report
from relay.workers.sockets import Sockets

log = structlog.get_logger()

NOT_STARTED = 127
_PROBES = 4
"""The number of unanswered probes in a row after which a process is killed. Probes are counted and not seconds: after
the whole machine was suspended, no worker was silent."""


class WorkerProcess:
    """The worker with one number. Each `run` is one process."""

    def __init__(self, number: int, config: NodeConfig, sockets: Sockets, *, verbose: bool) -> None:
        self.number = number
        self.listened = False
        """Set once any of its processes has accepted connections."""
        self.was_ready = False
        self.failure: str | None = None
        """The reason that it gave for an end that a restart would not help."""
        self._assignment = Assignment(number, pickle.dumps(config), [each.fileno() for each in sockets], verbose)
        self._process: asyncio.subprocess.Process | None = None
        self._link: IpcLink | None = None
        self._end_signal: signal.Signals | None = None
        self._serving = asyncio.Event()

    @property
    def pid(self) -> int | None:
        """The id of the running process, or None."""
        return None if self._process is None else self._process.pid

    async def run(
        self, port_report: Callable[[bool], Awaitable[Report]], on_ready: Callable[[], None], *, silence: float
    ) -> int:
        """Start a process and return its exit status when it has ended; negative for a signal that ended it.

        `port_report` answers its requests about all workers. A process that accepts connections and then sends nothing
        for about `silence` seconds is killed, unless `end` was called before: then its caller enforces the end.
        """
        self._serving = asyncio.Event()
        ours, theirs = socket.socketpair()
        try:
            self._process = await _spawn(theirs, self._assignment.sockets)
        except OSError as error:
            ours.close()
            log.error("worker.not_started", worker=self.number, error=str(error))  # noqa: TRY400 - no trace needed
            return NOT_STARTED
        finally:
            theirs.close()
        if self._end_signal is not None:  # while it was being started
            self._signal(self._end_signal)
        self._link = IpcLink(
            *await asyncio.open_unix_connection(sock=ours), port_report, response_seconds=WORKER_SECONDS
        )
        self._link.send(self._assignment)
        try:
            async with asyncio.TaskGroup() as tasks:
                listening = tasks.create_task(self._listen(self._link, on_ready))
                watching = tasks.create_task(self._watch(self._link, silence))
                code = await self._process.wait()
                watching.cancel()
                await asyncio.wait([listening], timeout=1)  # its last messages are still on the link
                listening.cancel()
        finally:
            self._signal(signal.SIGKILL)
            self._process = None
            link, self._link = self._link, None
            await link.close()
        return code

    async def report(self, *, metrics: bool) -> Report:
        """Return the worker's report, or one that says why there is none."""
        if self._link is None:
            return Report(f"worker {self.number} is being started")
        report = await self._link.request_report(metrics=metrics)
        if report is None:
            return Report(f"worker {self.number} does not answer")
        if report.unready is None:
            return report
        return Report(f"worker {self.number}: {report.unready}", report.families)

    def end(self, number: signal.Signals) -> None:
        """Send a signal that ends the process, also to one that is just being started."""
        self._end_signal = number
        self._signal(number)

    def force_stop(self) -> None:
        """Have the process end without a drain."""
        if self._link is not None:
            self._link.send(ForceStop())

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.returncode is None:
            os.kill(self._process.pid, number)

    async def _listen(self, link: IpcLink, on_ready: Callable[[], None]) -> None:
        while (notification := await link.receive()) is not None:
            match notification:
                case Listening():
                    self.listened = True
                    self._serving.set()
                case Ready():
                    self.was_ready = True
                    on_ready()
                case Failed(text):
                    self.failure = text

    async def _watch(self, link: IpcLink, silence: float) -> None:
        """Kill the process when it hangs: otherwise it would keep its sessions and its share of new connections."""
        await self._serving.wait()
        unanswered = 0
        while unanswered < _PROBES:
            received = link.received
            link.probe()
            await asyncio.sleep(silence / _PROBES)
            unanswered = unanswered + 1 if link.received == received else 0
            if self._end_signal is not None:
                return
        log.error("worker.silent", worker=self.number, seconds=silence)
        self._signal(signal.SIGKILL)


async def _spawn(link: socket.socket, inherited: list[int]) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "relay.workers.child"),
        stdin=link.fileno(),
        pass_fds=inherited,
        start_new_session=True,  # a terminal's signals go to the parent, which forwards them once
    )
