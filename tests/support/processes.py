"""Looking at processes from outside, on Linux."""

from contextlib import suppress
from pathlib import Path


def children(parent: int) -> set[int]:
    """Return the processes that a process has started, those that have ended excluded."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                state, ppid = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
                if int(ppid) == parent and state != "Z":
                    found.add(int(entry.name))
    return found


def exists(pid: int) -> bool:
    """Tell whether a process exists; a zombie does not count."""
    with suppress(OSError):
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False
