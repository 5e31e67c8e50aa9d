"""One deliberate defect, and its trial in a copy of the tree."""

import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import msgspec

TRIAL_SECONDS = 120
"""The time limit of one trial. A suite that hangs has noticed the defect."""
_TEST_SECONDS = 40
_FAILED, _NOTHING_RUN = 1, 5
"""Exit codes of pytest: at least one test failed; no test matched."""
_FIRST_FAILURE = re.compile(r"^(?:FAILED|ERROR) (\S+)", re.MULTILINE)

Verdict = Literal["killed", "SURVIVED", "does not apply", "invalid"]


class Mutant(msgspec.Struct, frozen=True):
    """A defect: in the file `path`, the text `old`, which occurs there once, becomes `new`.

    At least one of `tests` (files or node ids) has to fail on it.
    """

    defect: str
    path: str
    old: str
    new: str
    tests: tuple[str, ...]


class Outcome(msgspec.Struct, frozen=True):
    """`detail` is the first failing test, or the reason why there was no trial."""

    verdict: Verdict
    detail: str
    seconds: float


def occurrences(mutant: Mutant, tree: Path) -> int:
    """Count the places in the tree that the mutant would change; anything but 1 makes it useless."""
    path = tree / mutant.path
    return path.read_text().count(mutant.old) if path.is_file() else 0


def trial(mutant: Mutant, copy: Path, python: Path) -> Outcome:
    """Put the defect into a copy of the tree, run the mutant's tests there, and take it out again."""
    if (count := occurrences(mutant, copy)) != 1:
        return Outcome("does not apply", f"{mutant.path} has the old text {count} times", 0.0)
    began = time.monotonic()
    try:
        with _mutated(mutant, copy):
            finished = run_tests(mutant.tests, copy, python, "-x", "-o", f"timeout={_TEST_SECONDS}")
    except subprocess.TimeoutExpired:
        return Outcome("killed", f"no end within {TRIAL_SECONDS} s", time.monotonic() - began)
    seconds = time.monotonic() - began
    if finished.returncode == 0:
        return Outcome("SURVIVED", ", ".join(mutant.tests), seconds)
    first = _FIRST_FAILURE.search(finished.stdout)
    if finished.returncode != _FAILED or first is None:  # a module that cannot be imported proves nothing
        what = "no such test" if finished.returncode == _NOTHING_RUN else f"pytest ended with {finished.returncode}"
        return Outcome("invalid", f"{what}: {finished.stdout[-300:]}", seconds)
    return Outcome("killed", first[1], seconds)


@contextmanager
def _mutated(mutant: Mutant, copy: Path) -> Iterator[None]:
    """Change the file, and its time: by that Python knows if compiled code is still valid."""
    path = copy / mutant.path
    text, before = path.read_text(), path.stat().st_mtime
    path.write_text(text.replace(mutant.old, mutant.new))
    os.utime(path, (before + 10, before + 10))
    try:
        yield
    finally:
        path.write_text(text)
        os.utime(path, (before, before))


def run_tests(
    tests: Sequence[str], tree: Path, python: Path, *options: str, limit: float = TRIAL_SECONDS
) -> "subprocess.CompletedProcess[str]":
    """Run tests of a tree with that tree's own modules, in subprocesses too. Raises: subprocess.TimeoutExpired."""
    return subprocess.run(
        [python, "-m", "pytest", "-q", "--no-header", "-p", "no:cacheprovider", *options, *tests],
        cwd=tree,
        env={**os.environ, "PYTHONPATH": str(tree)},
        capture_output=True,
        text=True,
        check=False,
        timeout=limit,
    )


@contextmanager
def copied(tree: Path) -> Iterator[Path]:
    """Lend a copy of the tree's files, changes that are not committed included, without what git ignores."""
    listed = subprocess.run(
        ["git", "-C", tree, "ls-files", "-z", "--cached", "--others", "--exclude-standard"],  # noqa: S607
        capture_output=True,
        check=True,
    ).stdout
    with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
        copy = Path(folder)
        for name in os.fsdecode(listed).split("\0"):
            if name and (tree / name).is_file():
                (copy / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(tree / name, copy / name)
        yield copy
