"""The parent of all workers: it binds the port, starts them, starts them anew, and ends them. It serves nobody."""

import asyncio
import signal
from contextlib import AsyncExitStack

import structlog

from conclave.errors import ConclaveError
from relay.app.config import NodeConfig
from relay.app.shutdown import Shutdown
from relay.model.errors import NodeFailure, not_bound
from relay.observability.metrics.workers import WORKER, WorkerMetrics
from relay.transport.http import STATUS_GOODBYE_SECONDS, address_text, open_status_port
from relay.workers import sockets
from relay.workers.families import collect, merge, render
from relay.workers.ipc import Report
from relay.workers.worker_process import WorkerProcess

log = structlog.get_logger()

SILENT_SECONDS = 20.0
"""How long a worker may say nothing before it is taken for hung: far longer than any that is only busy."""
_STEADY_SECONDS = 60.0
_LOOK_SECONDS = 0.05
_FIRST_BACKOFF, _LONGEST_BACKOFF = 0.1, 5.0
_GRACE_SECONDS = 9.0
"""How long workers may take to end beyond their drain; then they are killed."""
_HURRY_SECONDS = 2.0
"""The same for workers that shall end at once."""


class Supervisor:
    """Runs the workers from `run` to `stop`."""

    def __init__(self, config: NodeConfig, *, verbose: bool, silence: float = SILENT_SECONDS) -> None:
        """`config` names a store that processes can share; one that is silent for `silence` seconds is replaced."""
        self._config = config
        self._verbose = verbose
        self._silence = silence
        self._workers: list[WorkerProcess] = []
        self._metrics = WorkerMetrics(config.workers)
        self._shutdown = Shutdown()
        self._failure: ConclaveError | None = None
        self._killed = False
        self._announced = False
        self._address = ""

    def stop(self) -> None:
        """Have `run` end when the workers have drained; the second time at once."""
        self._shutdown.request()

    def fail(self, failure: ConclaveError) -> None:
        """Have `run` end with this failure, without a drain."""
        self._failure = self._failure or failure
        self._shutdown.force()

    async def run(self) -> None:
        """Keep the workers running until `stop`.

        Raises:
            NodeFailure: if the address cannot be bound, or the workers cannot start, or cannot go on.
        """
        async with AsyncExitStack() as held:
            shares = self._bind()
            held.callback(sockets.close, shares)
            if self._config.metrics_address is not None:
                await self._open_status_port(held, *self._config.metrics_address)
            for number, share in enumerate(shares):
                self._workers.append(WorkerProcess(number, self._config, share, verbose=self._verbose))
            async with asyncio.TaskGroup() as tasks:
                for worker in self._workers:
                    tasks.create_task(self._keep(worker))
                await self._shutdown.requested.wait()
                log.info("shutdown signal received; ending the workers", workers=len(self._workers))
                sockets.close(shares)  # else the kernel would go on taking connections that nobody accepts
                self._signal(signal.SIGTERM)
                await self._see_off()
        if self._failure is not None:
            raise self._failure
        if self._killed:
            raise NodeFailure("killed workers that did not end in time: their sessions were not told")

    def _bind(self) -> list[sockets.Sockets]:
        host, port = self._config.host, self._config.port
        try:
            shares = sockets.bind(host, port, self._config.workers)
        except OSError as error:
            raise not_bound(host, port, error) from error
        self._address = address_text(shares[0][0].getsockname())
        return shares

    async def _open_status_port(self, held: AsyncExitStack, host: str, port: int) -> None:
        try:
            runner, address = await open_status_port(self, host, port)
        except OSError as error:
            raise not_bound(host, port, error) from error
        held.push_async_callback(lambda: self._shutdown.wait_for(runner.cleanup(), STATUS_GOODBYE_SECONDS))
        log.info("metrics listening", addr=address)

    async def _keep(self, worker: WorkerProcess) -> None:
        """Run one worker, life after life. What it says itself is final, a death without a word is not."""
        loop = asyncio.get_running_loop()
        deaths = 0
        while not self._shutdown.requested.is_set():
            born = loop.time()
            code = await worker.run(self.report, self._on_ready, silence=self._silence)
            if worker.failure is not None:
                self.fail(NodeFailure(worker.failure))
            elif not self._shutdown.requested.is_set() and not worker.listened:
                self.fail(NodeFailure(f"worker {worker.number} ended with status {code} before it could serve"))
            if self._shutdown.requested.is_set():
                return
            deaths = 1 if loop.time() - born >= _STEADY_SECONDS else deaths + 1
            log.error("worker.died", worker=worker.number, status=code, lived=round(loop.time() - born, 3))
            self._metrics.restarts.labels(worker=str(worker.number)).inc()
            await self._rest(min(_FIRST_BACKOFF * 2.0 ** (deaths - 1), _LONGEST_BACKOFF))

    async def _rest(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._shutdown.requested.wait()
        except TimeoutError:
            return

    async def _see_off(self) -> None:
        """Wait for the workers, pass on that there is a hurry, and kill whoever takes longer than it was given."""
        clock = asyncio.get_running_loop().time
        deadline = clock() + self._config.drain_delay + self._config.drain_seconds + _GRACE_SECONDS
        hurried = False
        while any(worker.pid is not None for worker in self._workers):
            if self._shutdown.forced.is_set() and not hurried:
                hurried = True
                deadline = min(deadline, clock() + _HURRY_SECONDS)
                for worker in self._workers:
                    worker.hurry()
            if clock() > deadline:
                self._killed = True
                self._signal(signal.SIGKILL)
                return
            await asyncio.sleep(_LOOK_SECONDS)

    def _signal(self, number: signal.Signals) -> None:
        for worker in self._workers:
            worker.end(number)

    def _on_ready(self) -> None:
        if not self._announced and all(worker.was_ready for worker in self._workers):
            self._announced = True
            log.info("conclave server listening", addr=self._address, workers=len(self._workers))

    # --- The status of the port, for workers and for the port of the metrics ---

    async def report(self, metrics: bool) -> Report:
        """Ask all workers how they are."""
        reports = await asyncio.gather(*(worker.ask(metrics=metrics) for worker in self._workers))
        unready = "shutting down" if self._shutdown.requested.is_set() else None
        unready = unready or next((report.unready for report in reports if report.unready is not None), None)
        if not metrics:
            return Report(unready)
        numbered = {str(worker.number): report for worker, report in zip(self._workers, reports, strict=True)}
        for number, report in numbered.items():
            self._metrics.up.labels(worker=number).set(bool(report.families))
        families = merge(WORKER, {number: report.families for number, report in numbered.items()})
        return Report(unready, [*families, *collect(self._metrics.registry)])

    async def why_unready(self) -> str | None:
        """Return why not all workers serve sessions, or None."""
        return (await self.report(False)).unready

    async def metrics(self) -> bytes:
        """Return the metrics of all workers, each with its number, in Prometheus' text format."""
        return render((await self.report(True)).families)
