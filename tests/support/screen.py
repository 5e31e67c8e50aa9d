"""A pseudo-terminal, and what a program has written to it."""

import asyncio
import contextlib
import fcntl
import os
import pty
import re
import signal
import struct
import termios
from typing import Self

from tests.support.programs import Process, fork

_ESCAPE = re.compile(r"\x1b(?:\[[0-9;?]*[A-Za-z]|\][^\x07]*\x07)")
HOME = "\x1b[H"


class Screen:
    """Runs `conclave` in a terminal of this size, of its own session as every terminal is."""

    def __init__(
        self, *arguments: str, columns: int = 160, rows: int = 20, environment: dict[str, str] | None = None
    ) -> None:
        self.shown = ""
        """All that was written, escape sequences included."""
        self._arguments = arguments
        self._size = (columns, rows)
        self._environment = environment or {}
        self._process: Process
        self._terminal = -1

    async def __aenter__(self) -> Self:
        self._terminal, inside = pty.openpty()
        os.set_blocking(self._terminal, False)
        self.resize(*self._size, tell=False)
        asyncio.get_running_loop().add_reader(self._terminal, self._read)
        clean = {name: value for name, value in os.environ.items() if name not in {"COLUMNS", "LINES", "NO_COLOR"}}
        self._process = await fork(
            *self._arguments,
            stdin=inside,
            stdout=inside,
            stderr=inside,
            start_new_session=True,
            env={**clean, "TERM": "xterm-256color", "PYTHONUTF8": "1", **self._environment},
        )
        os.close(inside)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._process.returncode is None:
            self._process.kill()
            await self._process.wait()
        asyncio.get_running_loop().remove_reader(self._terminal)
        os.close(self._terminal)

    @property
    def picture(self) -> str:
        """Return the last picture, without colours."""
        return _ESCAPE.sub("", self.shown.rpartition(HOME)[2])

    def resize(self, columns: int, rows: int, *, tell: bool = True) -> None:
        fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        if tell:
            self._process.send_signal(signal.SIGWINCH)

    async def end(self, number: signal.Signals) -> int:
        """Send a signal, and return the exit code."""
        self._process.send_signal(number)
        async with asyncio.timeout(20):
            return await self._process.wait()

    def _read(self) -> None:
        with contextlib.suppress(OSError):  # nobody writes any more
            self.shown += os.read(self._terminal, 64 * 1024).decode(errors="replace")
            return
        asyncio.get_running_loop().remove_reader(self._terminal)
