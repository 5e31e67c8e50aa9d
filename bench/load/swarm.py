"""The processes of a load, from the side that commands them."""

import gc
import multiprocessing
import os
import resource
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from multiprocessing.context import ForkProcess
from typing import Any

from bench.load.dialects import Dialect
from bench.load.programs import cpu_seconds, on_cores
from bench.load.worker import DEADLINE_SECONDS, Plan, Times, Worker
from relay.store.guard import end_with_parent

AT_ONCE = 32
"""The number of logins that are under way while sessions are opened."""


class Swarm:
    """Sessions, spread over processes. The first process leads: it holds the sessions that post and are timed."""

    def __init__(self, dialect: Dialect, addresses: list[tuple[str, int]], *, processes: int, cores: set[int]) -> None:
        self.dialect = dialect
        self._children: list[tuple[ForkProcess, Connection]] = []
        context = multiprocessing.get_context("fork")
        pipes = [os.pipe() for _ in range(processes - 1)]
        with on_cores(cores):
            for number in range(processes):
                here, there = context.Pipe()
                worker = _starter(
                    dialect,
                    addresses,
                    reports=[] if number else [reading for reading, _ in pipes],
                    report_to=pipes[number - 1][1] if number else None,
                )
                child = context.Process(target=worker, args=(there,), daemon=True)
                child.start()
                there.close()
                self._children.append((child, here))
        for descriptor in (each for pipe in pipes for each in pipe):
            os.close(descriptor)

    def cpu(self) -> float:
        """Return the CPU seconds of all processes."""
        return sum(cpu_seconds(child.pid) for child, _ in self._children if child.pid is not None)

    def open(self, leading: Sequence[Plan], others: Sequence[Plan] = (), at_once: int = AT_ONCE) -> float:
        """Open sessions: the first ones in the leading process, the others anywhere. Returns the seconds it took."""
        seconds: float = self.lead("open", plans=list(leading), at_once=at_once)
        count = len(self._children)
        parts = [{"plans": list(others[number::count]), "at_once": max(1, at_once // count)} for number in range(count)]
        others_took: float = max(self._all("open", parts))
        return seconds + others_took

    def behind(self, leading: int, command: str, **arguments: Any) -> list[Any]:
        """Have every process carry out a command on its sessions, but for the first ones of the leading process."""
        firsts = [leading] + [0] * (len(self._children) - 1)
        return self._all(command, [{"first": first, **arguments} for first in firsts])

    def everywhere(self, command: str) -> None:
        """Have every process carry out a command, at the same time."""
        self._all(command)

    def lead(self, command: str, **arguments: Any) -> Any:
        """Have the leading process carry out a command of `Worker`."""
        return self._all(command, [arguments])[0]

    def times(self, command: str, **arguments: Any) -> Times:
        """Have the leading process post or ask."""
        times: Times = self.lead(command, **arguments)
        return times

    def end(self) -> None:
        """End the processes."""
        for child, connection in self._children:
            child.terminate()
            child.join(DEADLINE_SECONDS)
            connection.close()

    def _all(self, command: str, arguments: list[dict[str, Any]] | None = None) -> list[Any]:
        pairs = list(zip(self._children, arguments or [{}] * len(self._children), strict=False))
        for (_, connection), words in pairs:
            connection.send((command, words))
        results = []
        for (_, connection), _ in pairs:
            if not connection.poll(DEADLINE_SECONDS + 10):
                raise TimeoutError(f"a process of the load does not answer to {command}")
            results.append(connection.recv())
        failed = next((result for result in results if isinstance(result, Exception)), None)
        if failed is not None:
            raise RuntimeError(f"{command}: {type(failed).__name__}: {failed}") from failed
        return results


def _starter(
    dialect: Dialect, addresses: list[tuple[str, int]], *, reports: list[int], report_to: int | None
) -> Callable[[Connection], None]:
    """Return the main function of a process."""

    def run(commands: Connection) -> None:
        end_with_parent()
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        gc.disable()  # nothing here is in a cycle, and a collection would be somebody's latency
        Worker(dialect, addresses, reports=reports, report_to=report_to).serve(commands)

    return run
