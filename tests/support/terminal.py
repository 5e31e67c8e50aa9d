"""Command lines of several users, each with a configuration directory of their own, all at one server."""

import asyncio
import shlex
from pathlib import Path

import pytest

from cli.main import run
from tests.support.command_line import Finished


class Terminal:
    """Runs command lines in this process, one at a time."""

    def __init__(self, home: Path, url: str, capsys: pytest.CaptureFixture[str]) -> None:
        self._home = home
        self.url = url
        self._capsys = capsys

    def directory(self, user: str) -> Path:
        return self._home / user

    async def type(self, user: str, line: str) -> Finished:
        """Run a command line of a user at the server; the words are split as a shell does."""
        arguments = ["--config-dir", str(self.directory(user)), *shlex.split(line), "--server", self.url]
        code = await asyncio.to_thread(run, arguments)  # with an event loop of its own, as in a process of its own
        captured = self._capsys.readouterr()
        return Finished(code, captured.out, captured.err)

    async def register(self, user: str, *options: str) -> Finished:
        return await self.type(user, shlex.join(["register", "--username", user, "--machine", "laptop", *options]))

    async def play(self, steps: list[tuple[str, str, str]]) -> None:
        """Run command lines, each (user, line, what it must print); what begins with ❌ is a failure."""
        for user, line, expected in steps:
            finished = await self.type(user, line)
            if expected.startswith("❌"):
                assert finished == Finished(1, "", f"{expected}\n"), f"{user}: {line}"
            else:
                printed = f"{expected}\n" if expected else ""
                assert (finished.code, finished.out) == (0, printed), f"{user}: {line}: {finished.err}"
