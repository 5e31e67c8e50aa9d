"""A real server for tests, from the wheel or from PATH, and the ways in which a server fails."""

import os
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from redis import Redis
from redis.exceptions import RedisError

from relay.store.binary import find_server
from relay.store.guard import end_with_parent
from tests.support.ports import free_port
from tests.support.waiting import wait_until


class RedisProcess:
    """One server that can be killed, paused and started again where it was: same address, same append-only file.

    It listens on a Unix socket in its directory, or on a TCP port of 127.0.0.1 that stays the same once chosen (for a
    proxy in between, or for several machines' worth of clients). It ends with the test process at the latest.
    """

    def __init__(
        self,
        directory: Path,
        *,
        tcp: bool = False,
        durable: bool = True,
        password: str = "",
        settings: tuple[str, ...] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """`settings` are further words for the server's command line, such as `("--maxmemory", "10mb")`.

        A `password` is only that of the clients made here; the settings have to set it. `environment` is added to that
        of this process.
        """
        self.directory = directory
        self.port = free_port() if tcp else 0
        self._durable = durable
        self._password = password
        self._settings = settings
        self._environment = environment or {}
        # Not in the test's own directory: a socket's path must be short.
        self._sockets = tempfile.TemporaryDirectory(prefix="redis-", dir="/tmp")
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        user = f":{self._password}@" if self._password else ""
        return f"redis://{user}127.0.0.1:{self.port}" if self.port else f"unix://{self._sockets.name}/redis.sock"

    @property
    def address(self) -> tuple[str, int]:
        """The TCP address."""
        parts = urlsplit(self.url)
        assert parts.hostname is not None
        assert parts.port is not None
        return parts.hostname, parts.port

    @property
    def pid(self) -> int:
        assert self._process is not None, "the server is not running"
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def log(self) -> str:
        """The server's output over all its runs."""
        return (self.directory / "redis.log").read_text(errors="replace")

    async def start(self) -> None:
        """Start, and return once it answers."""
        assert self._process is None, "the server is running"
        self.directory.mkdir(parents=True, exist_ok=True)
        self._process = self._spawn()
        await wait_until(self._answers, timeout=20, what=f"the server at {self.url} answers")

    def kill(self) -> None:
        """SIGKILL, as the kernel's out-of-memory killer or a power cut would; nothing is flushed."""
        self._end(signal.SIGKILL)

    def pause(self) -> None:
        """SIGSTOP: connections stay open and nothing answers, as a stalled machine would."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    async def restart(self) -> None:
        """Kill it if it runs, and start it again at the same address on the same files."""
        if self._process is not None:
            self.kill()
        await self.start()

    def client(self, timeout: float = 1.0) -> "Redis":
        """Return a client for the test's own questions."""
        return Redis.from_url(self.url, socket_timeout=timeout, socket_connect_timeout=timeout, retry=None)

    def flush(self) -> None:
        """Empty it, scripts included."""
        with Redis.from_url(self.url) as client:
            client.flushall()
            client.script_flush()

    def forget_scripts(self) -> None:
        """Forget the cached scripts, as a restart or a failover does."""
        with Redis.from_url(self.url) as client:
            client.script_flush()

    def cut_subscribers(self) -> int:
        """Cut every subscriber connection; returns their number."""
        with Redis.from_url(self.url) as client:
            return int(client.client_kill_filter(_type="pubsub"))

    def close(self) -> None:
        """End the server, in any state, and remove its socket. May be called twice."""
        if self._process is not None:
            self._end(signal.SIGKILL)
        self._sockets.cleanup()

    def _end(self, number: signal.Signals) -> None:
        assert self._process is not None, "the server is not running"
        self._process.send_signal(number)
        self._process.wait(timeout=20)
        self._process = None

    def _spawn(self) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            self._command(),
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            env={**os.environ, **self._environment},
            preexec_fn=_begin,  # noqa: PLW1509 - so that even a killed test run leaves no server behind
        )

    def _command(self) -> list[str]:
        where = ("--bind", "127.0.0.1") if self.port else ("--unixsocket", f"{self._sockets.name}/redis.sock")
        return [
            *(str(find_server()), "--dir", str(self.directory), "--port", str(self.port), *where),
            *("--logfile", str(self.directory / "redis.log"), "--save", ""),
            *("--appendonly", "yes" if self._durable else "no", "--appendfsync", "always"),
            *self._settings,
        ]

    def _answers(self) -> bool:
        assert self._process is not None
        code = self._process.poll()
        if code is not None:
            self._process = None
            raise AssertionError(f"the server ended with status {code}:\n{self.log[-2000:]}")
        try:
            with self.client() as client:
                return bool(client.ping())
        except (RedisError, OSError):
            return False


def _begin() -> None:
    """In the child, before it becomes the server: end with the parent, and meet a full disk as an error."""
    end_with_parent()
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
