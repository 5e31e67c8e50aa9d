"""CPU time of a command's start, against a bare interpreter.

    python bench/cli_start.py [--runs N]

Runs a bare interpreter, an interpreter that only imports click, and a few commands in turns, and prints for each the
median of the CPU time of the whole process, user and system, and its ratio to the bare interpreter's. Byte code is
cached, as it is after an installation.
"""

import argparse
import os
import statistics
import sys
import tempfile
from pathlib import Path

BARE = "python -I -c pass"
CLICK = "import click"
UNREACHABLE = '[[servers]]\nurl = "ws://127.0.0.1:9"\nusername = "ann"\nmachine = "laptop"\n'


def commands(folder: Path) -> dict[str, list[str]]:
    """Return what is measured, by its name; the second `status` finds a server that refuses the connection."""
    conclave = [str(Path(sys.executable).with_name("conclave"))]
    empty, registered = folder / "empty", folder / "registered"
    empty.mkdir()
    registered.mkdir()
    for directory in (empty, registered):
        (directory / "key").write_text("A" * 43)
    (registered / "config.toml").write_text(UNREACHABLE)
    here = ["--config-dir", str(empty)]
    return {
        BARE: [sys.executable, "-I", "-c", "pass"],
        CLICK: [sys.executable, "-c", CLICK],
        "conclave --version": [*conclave, "--version"],
        "conclave --help": [*conclave, "--help"],
        "conclave key": [*conclave, *here, "key"],
        "conclave server list": [*conclave, *here, "server", "list"],
        "conclave status, no server": [*conclave, *here, "status"],
        "conclave status, one server": [*conclave, "--config-dir", str(registered), "status"],
    }


def cpu_ms(command: list[str], env: dict[str, str]) -> float:
    """Return the CPU time of a process, in milliseconds."""
    nowhere = [(os.POSIX_SPAWN_OPEN, stream, os.devnull, os.O_WRONLY, 0) for stream in (1, 2)]
    child = os.posix_spawn(command[0], command, env, file_actions=nowhere)
    _, _, usage = os.wait4(child, 0)
    return (usage.ru_utime + usage.ru_stime) * 1000


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare the CPU time of commands with a bare interpreter's.")
    parser.add_argument("--runs", type=int, default=25)
    runs: int = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        env["PYTHONPYCACHEPREFIX"] = str(folder / "cache")
        measured = commands(folder)
        for command in measured.values():
            cpu_ms(command, env)
        times: dict[str, list[float]] = {name: [] for name in measured}
        for _ in range(runs):
            for name, command in measured.items():
                times[name].append(cpu_ms(command, env))
    bare = statistics.median(times[BARE])
    lines = [f"{'':<30}{'CPU ms':>8}{'ratio':>8}"]
    for name, values in times.items():
        median = statistics.median(values)
        lines.append(f"{name:<30}{median:>8.1f}{median / bare:>8.2f}")
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
