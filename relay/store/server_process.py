"""One run of the server program: started under its guard, its output logged, stopped."""

import asyncio
import os
import re
import sys
from collections import deque
from pathlib import Path
from typing import Self

import structlog

from relay.processes.ending import end_within
from relay.store.data_directory import DataDirectory

GUARD = Path(__file__).with_name("guard.py")
LAST_LINES = 12
LINE_BYTES = 4096

# `pid:role date time # text` is a warning; with `*`, `-` or `.` in that place it is routine. So is a requested end.
_ROUTINE = re.compile(r"\d+:[A-Z] .{20,30}? [*.-] |\d+:signal-handler |.* ready to exit, bye bye")

log = structlog.get_logger()


def arguments(directory: DataDirectory) -> list[str]:
    """Return the server's settings. It reads no configuration file and writes nothing outside the directory.

    `appendfsync always`: a write is on disk before its reply is sent, so acknowledged writes survive a power cut. All
    writes of one iteration of the server's event loop share one fsync.
    """
    settings = {
        "dir": str(directory.path),
        "port": "0",
        "unixsocket": str(directory.socket),
        "unixsocketperm": "700",
        "daemonize": "no",
        "logfile": "",
        "loglevel": "notice",
        "save": "",
        "appendonly": "yes",
        "appendfsync": "always",
        "no-appendfsync-on-rewrite": "no",
        "aof-use-rdb-preamble": "yes",
        "aof-load-truncated": "yes",
        "maxmemory-policy": "noeviction",
    }
    return [word for name, value in settings.items() for word in (f"--{name}", value)]


class ServerProcess:
    """A running guard with its server."""

    def __init__(self, process: asyncio.subprocess.Process, grace: float) -> None:
        self.started_at = asyncio.get_running_loop().time()
        self._process = process
        self._grace = grace
        self._lines: deque[str] = deque(maxlen=LAST_LINES)
        self._logging = asyncio.create_task(self._log_output(), name="store-log")

    @classmethod
    async def spawn(cls, program: Path, directory: DataDirectory, lock: int, *, grace: float) -> Self:
        """Start the server. It inherits the descriptor `lock`, which is closed in this process in any case.

        It has a session of its own: Ctrl-C in the terminal reaches the node only, which drains and then stops it.
        """
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-I",
                GUARD,
                str(lock),
                str(grace),
                program,
                *arguments(directory),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                pass_fds=(lock,),
                start_new_session=True,
            )
        finally:
            os.close(lock)
        return cls(process, grace)

    @property
    def pid(self) -> int:
        """The guard's process."""
        return self._process.pid

    @property
    def ended(self) -> bool:
        return self._process.returncode is not None

    @property
    def last_lines(self) -> str:
        return "\n".join(self._lines)

    async def wait(self) -> int:
        """Wait for the server's end and return its exit status; 128 plus the number if a signal ended it."""
        code = await self._process.wait()
        await asyncio.wait([self._logging], timeout=1)  # the server's last lines are still in the pipe
        return code

    async def stop(self) -> None:
        """Let the guard end the server: SIGTERM, after `grace` seconds SIGKILL. Returns when both are gone."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            if await end_within(self._process, self._grace + 2):
                await self.wait()
            else:
                log.error("store.guard_killed", pid=self._process.pid)
        finally:
            self._logging.cancel()

    async def _log_output(self) -> None:
        """Log the server's output line by line. A line beyond 4 KiB is cut, so that memory is bounded."""
        assert self._process.stdout is not None  # noqa: S101 - it was started with a pipe
        rest = b""
        while chunk := await self._process.stdout.read(65536):
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                self._log_line(line)
            rest = rest[:LINE_BYTES]
        if rest:
            self._log_line(rest)

    def _log_line(self, raw: bytes) -> None:
        line = raw[:LINE_BYTES].decode(errors="replace").rstrip()
        if not line:
            return
        self._lines.append(line)
        # Its warning about memory overcommit concerns dedicated servers; on a laptop it is noise.
        log_line = log.debug if _ROUTINE.match(line) or "overcommit" in line else log.warning
        log_line("store.server_said", line=line)
