"""A node of a local cluster: a process of its own, whose end is seen."""

import asyncio
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from relay.launch.balancer import Address

GRACE_SECONDS = 10.0
"""From SIGTERM to SIGKILL: longer than a node takes to say goodbye to its sessions."""
_TAIL_BYTES = 4096


class NodeProcess:
    """A started node. Its standard input is a pipe that only this process holds: the node ends when it closes."""

    def __init__(self, number: int, address: Address, log: Path, process: asyncio.subprocess.Process) -> None:
        self.number = number
        self.address = address
        self.log = log
        self._process = process

    @classmethod
    async def spawn(
        cls, number: int, address: Address, log: Path, command: Sequence[str], environment: Mapping[str, str]
    ) -> Self:
        """Start `command`, which has to end when its standard input does; what it says goes to the file `log`.

        It has a session of its own: Ctrl-C in the terminal reaches this process, which stops all in their order.
        """
        with log.open("wb") as words:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.PIPE,
                stdout=words,
                stderr=words,
                start_new_session=True,
                env=environment,
            )
        return cls(number, address, log, process)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def end(self) -> str | None:
        """How it ended, in words; None while it runs."""
        code = self._process.returncode
        if code is None:
            return None
        if code < 0:
            return f"was killed by {signal.Signals(-code).name}"
        words = self._last_words()
        return f"ended with status {code}" + (f": {words}" if words else "")

    async def wait(self) -> None:
        """Return when it has ended."""
        await self._process.wait()

    async def stop(self) -> None:
        """SIGTERM, and SIGKILL for one that does not heed it. Returns when it is gone."""
        if self._process.returncode is None:
            self._process.terminate()
        try:
            async with asyncio.timeout(GRACE_SECONDS):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()

    def _last_words(self) -> str:
        """The last line of its log."""
        with self.log.open("rb") as words:
            words.seek(max(0, words.seek(0, 2) - _TAIL_BYTES))
            lines = words.read().decode(errors="replace").splitlines()
        return next((line.strip() for line in reversed(lines) if line.strip()), "")
