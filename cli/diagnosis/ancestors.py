"""The Claude Code process among the ancestors of this process, and its command line as far as it is visible."""

import os
import re
from collections.abc import Awaitable, Callable
from pathlib import Path, PurePath

import msgspec

from cli.diagnosis.programs import first_match

_GENERATIONS = 64
_PS_SECONDS = 2.0
_PARENT = re.compile(r"^\s*(\d+)\s+(.*)$")

_INTERPRETERS = frozenset({"node", "nodejs", "bun"})
_INSTALLED = re.compile(r"/claude/versions/[^/]+$|/claude-code/")

_DEVELOPMENT = "--dangerously-load-development-channels"
_ALLOWED = "--channels"


class Process(msgspec.Struct, frozen=True):
    """A running process. `whole` is False if arguments may be missing: a process can overwrite its own."""

    pid: int
    argv: tuple[str, ...]
    whole: bool

    @property
    def is_claude(self) -> bool:
        program, *rest = self.argv or ("",)
        names = [program, *rest[:1]] if PurePath(program).name in _INTERPRETERS else [program]
        return any(PurePath(name).name == "claude" or _INSTALLED.search(name) for name in names)

    @property
    def prints(self) -> bool:
        """True for print mode: one answer, without a session."""
        return not {"-p", "--print"}.isdisjoint(self.argv)

    @property
    def development_channels(self) -> tuple[str, ...]:
        """The servers and plugins that may push events without being on the list of allowed ones."""
        return _values(self.argv, _DEVELOPMENT)

    @property
    def allowed_channels(self) -> tuple[str, ...]:
        return _values(self.argv, _ALLOWED)


def _values(argv: tuple[str, ...], option: str) -> tuple[str, ...]:
    """Return the channels that an option of many values names. Another value may be a prompt, and is skipped."""
    found: list[str] = []
    taking = False
    for word in argv:
        if word.startswith("-"):
            name, _, value = word.partition("=")
            taking = name == option
            word = value  # noqa: PLW2901 - what is left of it
        if taking and word:
            found += [part for part in re.split(r"[\s,]+", word) if part.startswith(("server:", "plugin:"))]
    return tuple(found)


Look = Callable[[int], Awaitable[tuple[Process, int] | None]]
"""Maps a process id to the process and its parent's id; None if the process is not visible."""


async def claude_above(pid: int, look: Look) -> Process | None:
    """Return the nearest Claude Code among a process and its ancestors; None if none is visible."""
    for _ in range(_GENERATIONS):
        seen = await look(pid)
        if seen is None:
            return None
        process, parent = seen
        if process.is_claude:
            return process
        if parent < 1:
            return None
        pid = parent
    return None


def this_system() -> Look:
    """Return the way to inspect processes on this system: /proc or `ps`."""
    return look_in_proc if Path("/proc/self/stat").exists() else ask_ps


async def look_in_proc(pid: int) -> tuple[Process, int] | None:
    folder = Path("/proc") / str(pid)
    try:
        # The name is in parentheses and may contain some itself; the state and the parent follow.
        parent = int((folder / "stat").read_bytes().rpartition(b")")[2].split()[1])
        line = (folder / "cmdline").read_bytes()
    except (OSError, IndexError, ValueError):
        return None
    # Node.js writes a title over the arguments, and zeros over what remains.
    return Process(pid, tuple(map(os.fsdecode, line.rstrip(b"\0").split(b"\0"))), not line.endswith(b"\0\0")), parent


async def ask_ps(pid: int) -> tuple[Process, int] | None:
    command = ("ps", "-ww", "-o", "ppid=,command=", "-p", str(pid))
    try:
        found = await first_match(_PARENT, *command, deadline=_PS_SECONDS)
    except (OSError, TimeoutError):
        return None
    if found is None:
        return None
    argv = tuple(found[2].split())
    return Process(pid, argv, whole=len(argv) > 1), int(found[1])
