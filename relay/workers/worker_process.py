"""One worker as its parent sees it: one process after the other, each with a line of its own."""

import asyncio
import os
import pickle
import signal
import socket
import sys
from collections.abc import Awaitable, Callable

import structlog

from relay.app.config import NodeConfig
from relay.workers.ipc import WORKER_SECONDS, Assignment, Failed, Hurry, IpcLink, Listening, Ready, Report
from relay.workers.sockets import Sockets

log = structlog.get_logger()

NOT_STARTED = 127
_PROBES = 4
"""How many questions in a row a process leaves unanswered before it is killed. Questions are counted and not seconds:
when all processes stood still together, a machine that slept for instance, none of them was silent."""


class WorkerProcess:
    """The process with one number. `run` is one life of it."""

    def __init__(self, number: int, config: NodeConfig, sockets: Sockets, *, verbose: bool) -> None:
        self.number = number
        self.listened = False
        """Whether it ever took connections, in whichever life."""
        self.was_ready = False
        self.failure: str | None = None
        """Why it ended, in its own words: for good."""
        self._assignment = Assignment(number, pickle.dumps(config), [each.fileno() for each in sockets], verbose)
        self._process: asyncio.subprocess.Process | None = None
        self._line: IpcLink | None = None
        self._told: signal.Signals | None = None
        self._serving = asyncio.Event()

    @property
    def pid(self) -> int | None:
        """The process, while there is one."""
        return None if self._process is None else self._process.pid

    async def run(
        self, overview: Callable[[bool], Awaitable[Report]], on_ready: Callable[[], None], *, silence: float
    ) -> int:
        """Start a process and return its exit status when it has ended; minus the number of a signal that ended it.

        `overview` answers what it asks about all workers. A process that takes connections and then says nothing for
        about `silence` seconds is killed, unless it was told to end: then whoever told it sees to that.
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
        if self._told is not None:  # while it was being started
            self._signal(self._told)
        self._line = IpcLink(*await asyncio.open_unix_connection(sock=ours), overview, patience=WORKER_SECONDS)
        self._line.send(self._assignment)
        try:
            async with asyncio.TaskGroup() as tasks:
                listening = tasks.create_task(self._listen(self._line, on_ready))
                watching = tasks.create_task(self._watch(self._line, silence))
                code = await self._process.wait()
                watching.cancel()
                await asyncio.wait([listening], timeout=1)  # its last words are still on the line
                listening.cancel()
        finally:
            self._signal(signal.SIGKILL)
            self._process = None
            line, self._line = self._line, None
            await line.close()
        return code

    async def ask(self, *, metrics: bool) -> Report:
        """Ask how it is."""
        if self._line is None:
            return Report(f"worker {self.number} is being started")
        report = await self._line.ask(metrics=metrics)
        if report is None:
            return Report(f"worker {self.number} does not answer")
        if report.unready is None:
            return report
        return Report(f"worker {self.number}: {report.unready}", report.families)

    def end(self, number: signal.Signals) -> None:
        """Have this life end by a signal, also one that is just beginning."""
        self._told = number
        self._signal(number)

    def hurry(self) -> None:
        """Have this life end without a drain, if it can listen."""
        if self._line is not None:
            self._line.send(Hurry())

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.returncode is None:
            os.kill(self._process.pid, number)

    async def _listen(self, line: IpcLink, on_ready: Callable[[], None]) -> None:
        while (note := await line.receive()) is not None:
            match note:
                case Listening():
                    self.listened = True
                    self._serving.set()
                case Ready():
                    self.was_ready = True
                    on_ready()
                case Failed(text):
                    self.failure = text

    async def _watch(self, line: IpcLink, silence: float) -> None:
        """Kill the process when it hangs: it would keep its sessions and its share of those who connect for ever."""
        await self._serving.wait()
        unanswered = 0
        while unanswered < _PROBES:
            heard = line.heard
            line.probe()
            await asyncio.sleep(silence / _PROBES)
            unanswered = unanswered + 1 if line.heard == heard else 0
            if self._told is not None:
                return
        log.error("worker.silent", worker=self.number, seconds=silence)
        self._signal(signal.SIGKILL)


async def _spawn(line: socket.socket, inherited: list[int]) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "relay.workers.child"),
        stdin=line.fileno(),
        pass_fds=inherited,
        start_new_session=True,  # what a terminal sends goes to the parent, which passes it on once
    )
