"""What the parent of several processes counts itself, beside the metrics of each of them."""

from relay.observability.metrics.table import Table

WORKER = "worker"
"""The label that tells the series of one process from another's: 0, 1, and so on."""


class WorkerMetrics(Table):
    """The parent's metrics; only there with `--workers`."""

    def __init__(self, count: int) -> None:
        super().__init__()
        numbers = [str(number) for number in range(count)]
        self.up = self._gauges("worker_up", "1 while the worker answers its parent.", worker=numbers)
        self.restarts = self._counters(
            "worker_restarts", "Times that the worker had died and was started anew.", worker=numbers
        )
