"""One run of the server program: start it under its guard, pass on what it says, stop it."""

import asyncio
import os
import re
import sys
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import Self

import structlog

from relay.store.data_directory import DataDirectory

GUARD = Path(__file__).with_name("guard.py")
LAST_WORDS = 12
LINE_BYTES = 4096

# `pid:role date time # text` is a warning; with `*`, `-` or `.` in that place it is routine. So is a meant end.
_ROUTINE = re.compile(r"\d+:[A-Z] .{20,30}? [*.-] |\d+:signal-handler |.* ready to exit, bye bye")

log = structlog.get_logger()


def arguments(directory: DataDirectory) -> list[str]:
    """The server's settings; it reads no configuration file and writes nothing outside the directory.

    `appendfsync always`: a write is on disk before its reply leaves, so what was acknowledged survives a power cut. All
    writes that are ready in one turn of the server's loop share one fsync.
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
    """A running guard with its server. `wait` returns when the server has ended, for whatever reason."""

    def __init__(self, process: asyncio.subprocess.Process, grace: float) -> None:
        self.started_at = asyncio.get_running_loop().time()
        self._process = process
        self._grace = grace
        self._words: deque[str] = deque(maxlen=LAST_WORDS)
        self._listening = asyncio.create_task(self._listen(), name="store-log")

    @classmethod
    async def spawn(cls, program: Path, directory: DataDirectory, lock: int, *, grace: float) -> Self:
        """Start the server; it takes over the descriptor `lock`, which is closed here in any case.

        It has a session of its own: Ctrl-C in the node's terminal reaches the node, which drains before it stops it.
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
    def last_words(self) -> str:
        return "\n".join(self._words)

    async def wait(self) -> int:
        """The exit status of the server; 128 plus the number if a signal ended it."""
        code = await self._process.wait()
        await asyncio.wait([self._listening], timeout=1)  # the server's last lines are still in the pipe
        return code

    async def stop(self) -> None:
        """Let the guard end the server: SIGTERM, after `grace` seconds SIGKILL. Returns when both are gone."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            async with asyncio.timeout(self._grace + 2):
                await self.wait()
        except TimeoutError:
            log.error("store.guard_killed", pid=self._process.pid)  # noqa: TRY400 - no trace needed
            self._process.kill()
            with suppress(TimeoutError):
                async with asyncio.timeout(2):
                    await self.wait()
        finally:
            self._listening.cancel()

    async def _listen(self) -> None:
        """Pass on the server's output line by line; a line without end is cut, not gathered."""
        assert self._process.stdout is not None  # noqa: S101 - it was started with a pipe
        rest = b""
        while chunk := await self._process.stdout.read(65536):
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                self._hear(line)
            rest = rest[:LINE_BYTES]
        if rest:
            self._hear(rest)

    def _hear(self, raw: bytes) -> None:
        line = raw[:LINE_BYTES].decode(errors="replace").rstrip()
        if not line:
            return
        self._words.append(line)
        # Its advice about memory overcommit is for machines with a server of their own; a laptop's user did not ask.
        say = log.debug if _ROUTINE.match(line) or "overcommit" in line else log.warning
        say("store.server_said", line=line)
