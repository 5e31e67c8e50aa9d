"""The measured programs as processes: each on cores of its own, with its CPU time and its memory. Linux only."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from redis import Redis
from redis.exceptions import RedisError

from relay.store.binary import find_server
from relay.store.guard import end_with_parent

START_SECONDS = 30.0
END_SECONDS = 10.0


class Cores:
    """The cores of a measurement: nodes have the last one, Redis and the load the others. One core serves all."""

    def __init__(self) -> None:
        usable = sorted(os.sched_getaffinity(0))
        self.nodes = {usable[-1]}
        self.load = set(usable[:-1]) or self.nodes


@contextmanager
def on_cores(cores: set[int]) -> Iterator[None]:
    """Have the processes that are started in the block run on these cores."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Program(ABC):
    """A process that runs on given cores, and ends with this one at the latest."""

    def __init__(
        self, command: list[str], cores: set[int], *, folder: Path, env: Mapping[str, str] | None = None
    ) -> None:
        """Start it in `folder`. What it prints is kept in a file, for the reason of a failed start."""
        with tempfile.NamedTemporaryFile(prefix="log-", dir=folder, delete=False) as log, on_cores(cores):
            self._log = Path(log.name)
            self._process = subprocess.Popen(  # noqa: S603 - the programs that are measured
                command,
                cwd=folder,
                env=None if env is None else dict(env),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=end_with_parent,  # noqa: PLW1509 - this process has one thread
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    @abstractmethod
    def serves(self) -> bool:
        """Return whether it has started."""

    def wait(self) -> None:
        """Wait until it serves. Raises: RuntimeError, with the last lines that it has printed."""
        deadline = time.monotonic() + START_SECONDS
        while not self.serves():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{type(self).__name__} has not started:\n{self.log[-2000:]}")
            time.sleep(0.01)

    def cpu(self) -> float:
        """Return the CPU seconds of the process and of those that it has started, all threads, by the scheduler."""
        return sum(map(_cpu_ns, _family(self.pid))) / 1e9

    def resident_bytes(self) -> int:
        return sum(map(_resident_bytes, _family(self.pid)))

    def end(self) -> None:
        """Have it end. `wait_for_end` follows."""
        self._process.send_signal(signal.SIGTERM)

    def wait_for_end(self) -> None:
        """Wait for its end, and kill it after some seconds."""
        try:
            self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(self.pid, signal.SIGKILL)
            self._process.wait(END_SECONDS)


class Store(Program):
    """A Redis of one candidate's own, in memory only."""

    def __init__(self, cores: set[int], folder: Path) -> None:
        self.port = free_port()
        words = f"--bind 127.0.0.1 --port {self.port} --save '' --appendonly no --dir {folder}"
        super().__init__([str(find_server()), *words.replace("''", "").split(" ")], cores, folder=folder)
        self.wait()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def serves(self) -> bool:
        with contextlib.suppress(RedisError, OSError), Redis.from_url(self.url, socket_timeout=1, retry=None) as client:
            return bool(client.ping())
        return False


class Node(Program):
    """`conclave serve` of a tree of this project."""

    def __init__(self, tree: Path, cores: set[int], folder: Path, *arguments: str) -> None:
        interpreter = tree / ".venv" / "bin" / "python"
        own = {name: value for name, value in os.environ.items() if not name.startswith(("CONCLAVE_", "PYTHON"))}
        super().__init__(
            [
                str(interpreter if interpreter.exists() else sys.executable),
                *("-m", "cli", "serve", "--bind", "127.0.0.1:0", *arguments),
            ],
            cores,
            folder=folder,
            env={
                **own,
                "PYTHONPATH": str(tree),
                "PYTHONPYCACHEPREFIX": str(folder / "cache"),  # compiled once, not at every start
                "CONCLAVE_DRAIN_DELAY": "0",
                "CONCLAVE_DRAIN_SECONDS": "0",
            },
        )

    def serves(self) -> bool:
        return self._found_address() is not None

    @property
    def address(self) -> tuple[str, int]:
        host, _, port = (self._found_address() or "").rpartition(":")
        return host, int(port)

    def _found_address(self) -> str | None:
        found = re.search(r"""server listening.*?addr(?:=|": ?)["']([^"']+)["']""", self.log)
        return found[1] if found else None


class Listener(Program):
    """A server that is told its port, and is ready when it takes a connection."""

    def __init__(self, command: list[str], port: int, cores: set[int], folder: Path) -> None:
        super().__init__(command, cores, folder=folder)
        self.address = "127.0.0.1", port

    def serves(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(self.address, 1):
            return True
        return False


def _family(pid: int) -> list[int]:
    """Return a process and all that it has started, directly or not."""
    found = [pid]
    for each in found:
        for task in _tasks(each):
            with contextlib.suppress(OSError):
                found += map(int, (task / "children").read_text().split())
    return found


def _tasks(pid: int) -> list[Path]:
    with contextlib.suppress(OSError):
        return list(Path(f"/proc/{pid}/task").iterdir())
    return []


def cpu_seconds(pid: int) -> float:
    """Return the CPU seconds of a process, all threads, by the scheduler."""
    return _cpu_ns(pid) / 1e9


def _cpu_ns(pid: int) -> int:
    total = 0
    for task in _tasks(pid):
        with contextlib.suppress(OSError):
            total += int((task / "schedstat").read_text().split()[0])
    return total


def _resident_bytes(pid: int) -> int:
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0
