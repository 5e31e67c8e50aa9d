"""The parent of all workers: it binds the port, and starts, restarts and stops them. It serves no sessions itself."""

import asyncio
import signal
from contextlib import AsyncExitStack, suppress

import structlog

from conclave.backoff import Backoff
from conclave.errors import ConclaveError
from relay.app.config import NodeConfig
from relay.app.shutdown import Shutdown
from relay.model.errors import NodeFailure, bind_failure
from relay.observability.metrics.workers import WORKER, WorkerMetrics
from relay.processes.restart_policy import RestartPolicy
from relay.transport.http import STATUS_GOODBYE_SECONDS, address_text, open_status_port
from relay.workers import sockets
from relay.workers.families import collect, merge, render
from relay.workers.ipc import Report
from relay.workers.worker_process import WorkerProcess

log = structlog.get_logger()

SILENT_SECONDS = 20.0
"""The silence after which a worker counts as hung: far longer than that of a busy one."""
_STEADY_SECONDS = 60.0
_POLL_SECONDS = 0.05
_FIRST_BACKOFF, _LONGEST_BACKOFF = 0.1, 5.0
_GRACE_SECONDS = 9.0
"""The time that workers have to end beyond their drain; then they are killed."""
_FORCED_GRACE_SECONDS = 2.0
"""The same in a forced shutdown."""


class Supervisor:
    """Runs several workers behind one port."""

    def __init__(self, config: NodeConfig, *, verbose: bool, silence: float = SILENT_SECONDS) -> None:
        """`config` names a store that processes can share. A worker is replaced after `silence` silent seconds."""
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
        """Have `run` end when the workers have drained; the second call ends it without a drain."""
        self._shutdown.request()

    def fail(self, failure: ConclaveError) -> None:
        """Have `run` raise this failure, without a drain. The first failure counts."""
        self._failure = self._failure or failure
        self._shutdown.force()

    async def run(self) -> None:
        """Keep the workers running until `stop`.

        Raises:
            NodeFailure: if the address cannot be bound, or the workers cannot start, or cannot go on.
        """
        async with AsyncExitStack() as resources:
            shares = self._bind()
            resources.callback(sockets.close, shares)
            if self._config.metrics_address is not None:
                await self._open_status_port(resources, *self._config.metrics_address)
            for number, share in enumerate(shares):
                self._workers.append(WorkerProcess(number, self._config, share, verbose=self._verbose))
            async with asyncio.TaskGroup() as tasks:
                for worker in self._workers:
                    tasks.create_task(self._supervise(worker))
                await self._shutdown.requested.wait()
                log.info("shutdown signal received; ending the workers", workers=len(self._workers))
                sockets.close(shares)  # otherwise the kernel would queue connections that no worker accepts
                self._signal(signal.SIGTERM)
                await self._wait_for_workers()
        if self._failure is not None:
            raise self._failure
        if self._killed:
            raise NodeFailure("killed workers that did not end in time: their sessions were not told")

    def _bind(self) -> list[sockets.Sockets]:
        host, port = self._config.host, self._config.port
        try:
            shares = sockets.bind(host, port, self._config.workers)
        except OSError as error:
            raise bind_failure(host, port, error) from error
        self._address = address_text(shares[0][0].getsockname())
        return shares

    async def _open_status_port(self, resources: AsyncExitStack, host: str, port: int) -> None:
        try:
            runner, address = await open_status_port(self, host, port)
        except OSError as error:
            raise bind_failure(host, port, error) from error
        resources.push_async_callback(lambda: self._shutdown.wait_for(runner.cleanup(), STATUS_GOODBYE_SECONDS))
        log.info("metrics listening", addr=address)

    async def _supervise(self, worker: WorkerProcess) -> None:
        """Run one worker and restart it when it dies. A failure that it reports itself ends the relay."""
        clock = asyncio.get_running_loop().time
        restarts = RestartPolicy(Backoff(_FIRST_BACKOFF, _LONGEST_BACKOFF), steady_seconds=_STEADY_SECONDS)
        while not self._shutdown.requested.is_set():
            started_at = clock()
            code = await worker.run(self.report, self._on_ready, silence=self._silence)
            if worker.failure is not None:
                self.fail(NodeFailure(worker.failure))
            elif not self._shutdown.requested.is_set() and not worker.listened:
                self.fail(NodeFailure(f"worker {worker.number} ended with status {code} before it could serve"))
            if self._shutdown.requested.is_set():
                return
            lived = clock() - started_at
            log.error("worker.died", worker=worker.number, status=code, lived=round(lived, 3))
            self._metrics.restarts.labels(worker=str(worker.number)).inc()
            with suppress(TimeoutError):
                async with asyncio.timeout(restarts.died(lived)):
                    await self._shutdown.requested.wait()

    async def _wait_for_workers(self) -> None:
        """Wait for the workers' end, forward a forced shutdown, and kill workers that exceed their time."""
        clock = asyncio.get_running_loop().time
        deadline = clock() + self._config.drain_delay + self._config.drain_seconds + _GRACE_SECONDS
        forced = False
        while any(worker.pid is not None for worker in self._workers):
            if self._shutdown.forced.is_set() and not forced:
                forced = True
                deadline = min(deadline, clock() + _FORCED_GRACE_SECONDS)
                for worker in self._workers:
                    worker.force_stop()
            if clock() > deadline:
                self._killed = True
                self._signal(signal.SIGKILL)
                return
            await asyncio.sleep(_POLL_SECONDS)

    def _signal(self, number: signal.Signals) -> None:
        for worker in self._workers:
            worker.end(number)

    def _on_ready(self) -> None:
        if not self._announced and all(worker.was_ready for worker in self._workers):
            self._announced = True
            log.info("conclave server listening", addr=self._address, workers=len(self._workers))

    # --- The status of all workers, for each of them and for the metrics' own port ---

    async def report(self, metrics: bool) -> Report:
        """Return the reports of all workers as one."""
        reports = await asyncio.gather(*(worker.report(metrics=metrics) for worker in self._workers))
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
        """Return the reason why not all workers serve sessions, or None."""
        return (await self.report(False)).unready

    async def metrics(self) -> bytes:
        """Return the metrics of all workers in Prometheus' text format, labelled with the worker's number."""
        return render((await self.report(True)).families)
