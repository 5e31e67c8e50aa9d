"""Two trees of this project that measure in turns, each in a process of its own."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO

ROOT = Path(__file__).parents[1]
MEASURE = "--measure"
"""The first argument of the process that measures."""


class Tree:
    """A program of this folder that runs in one tree, and prints a line of figures for each line that it reads."""

    def __init__(self, path: Path, program: str, arguments: tuple[str, ...], figures: int) -> None:
        """`program` is its file; `figures` is how many are on a line."""
        self._figures = figures
        command = [sys.executable, "-P", program, MEASURE, *arguments]
        environment = {**os.environ, "CONCLAVE_LOG": "warn", "PYTHONPATH": os.pathsep.join((str(path), str(ROOT)))}
        self._process = subprocess.Popen(  # noqa: S603
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def read(self) -> list[float]:
        """Return the figures of the next line. Raises: SystemExit if there is none."""
        figures = [float(each) for each in _pipe(self._process.stdout).readline().split()]
        if len(figures) != self._figures:
            raise SystemExit("the measuring process has ended")
        return figures

    def measure(self) -> list[float]:
        """Have it measure once, and return the figures."""
        stdin = _pipe(self._process.stdin)
        stdin.write("\n")
        stdin.flush()
        return self.read()

    def close(self) -> None:
        self._process.communicate()


def _pipe(stream: IO[str] | None) -> IO[str]:
    if stream is None:
        raise AssertionError("a pipe was asked for")
    return stream


def alternate(
    here: Tree, there: Tree, rounds: int, measure: Callable[[Tree], list[float]] = Tree.measure
) -> tuple[list[list[float]], list[list[float]]]:
    """Measure in turns after a round that fills the caches, then end both. Returns the figures of each, by rounds."""
    found: dict[Tree, list[list[float]]] = {here: [], there: []}
    for turn in range(rounds + 1):
        for tree in (here, there) if turn % 2 else (there, here):
            found[tree].append(measure(tree))
    for tree in found:
        tree.close()
    return found[here][1:], found[there][1:]
