"""The metrics of the supervisor of several workers, beside those of each worker."""

from relay.observability.metrics.table import Table

WORKER = "worker"
"""The label of a worker's series: its number, from 0."""


class WorkerMetrics(Table):
    """The supervisor's metrics; they exist only with `--workers`."""

    def __init__(self, count: int) -> None:
        super().__init__()
        numbers = [str(number) for number in range(count)]
        self.up = self._gauges("worker_up", "1 while the worker answers its supervisor.", worker=numbers)
        self.restarts = self._counters("worker_restarts", "Restarts of the worker after its death.", worker=numbers)
