"""A node of a local cluster, as a child process."""

import asyncio
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from relay.launch.balancer import Address
from relay.processes.ending import end_within

GRACE_SECONDS = 10.0
"""From SIGTERM to SIGKILL: longer than a node takes to close its sessions."""
_TAIL_BYTES = 4096


class NodeProcess:
    """A started node. Its standard input is a pipe that only this process holds; the node ends when the pipe closes."""

    def __init__(self, number: int, address: Address, log: Path, process: asyncio.subprocess.Process) -> None:
        self.number = number
        self.address = address
        self.log = log
        self._process = process

    @classmethod
    async def spawn(
        cls, number: int, address: Address, log: Path, command: Sequence[str], environment: Mapping[str, str]
    ) -> Self:
        """Start `command`, which has to end when its standard input does. Its output goes to the file `log`.

        It has a session of its own: Ctrl-C in the terminal reaches this process only, which stops all nodes in order.
        """
        with log.open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.PIPE,
                stdout=output,
                stderr=output,
                start_new_session=True,
                env=environment,
            )
        return cls(number, address, log, process)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def end(self) -> str | None:
        """A description of its end; None while it runs."""
        code = self._process.returncode
        if code is None:
            return None
        if code < 0:
            return f"was killed by {signal.Signals(-code).name}"
        line = self._last_line()
        return f"ended with status {code}" + (f": {line}" if line else "")

    async def wait(self) -> None:
        """Wait until it has ended."""
        await self._process.wait()

    async def stop(self) -> None:
        """Send SIGTERM, and SIGKILL after 10 seconds. Returns when the process has ended."""
        if self._process.returncode is None:
            self._process.terminate()
        await end_within(self._process, GRACE_SECONDS)

    def _last_line(self) -> str:
        """Return the last line of its log."""
        with self.log.open("rb") as output:
            output.seek(max(0, output.seek(0, 2) - _TAIL_BYTES))
            lines = output.read().decode(errors="replace").splitlines()
        return next((line.strip() for line in reversed(lines) if line.strip()), "")
