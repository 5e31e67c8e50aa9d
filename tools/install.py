"""Installs locked packages, and projects of this checkout in editable form, into a virtual environment.

    python tools/install.py VENV LOCK... [--project DIRECTORY]...

`make` runs this with a bare interpreter, so it imports the standard library alone. Every package is checked against
the hashes of its lock. pip fetches uv (requirements-uv.lock), and uv installs the rest in a fifth of pip's time.
pip takes over where uv fails, for example behind a mirror that only pip's configuration knows.

A repeated run completes what an earlier one has left out. An interrupted installation starts over with an empty
environment. Two installations into one environment run one after the other.
"""

import argparse
import fcntl
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TextIO

BASE_PYTHON = sys.executable if sys.prefix == sys.base_prefix else os.path.realpath(sys.executable)
"""The interpreter outside of any virtual environment: this one may be in the one that is made anew."""

UV_LOCK = Path(__file__).parents[1] / "requirements-uv.lock"


_FAILED = """
The packages of {locks} are not installed; the lines above say why.
They come from the package index that pip is configured for. Check that this machine can reach it, and try again.
"""


class InstallError(Exception):
    """Neither uv nor pip could install the packages; what they printed precedes this."""


class Environment:
    """A virtual environment that exists, and the program that installs into it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.python = root / "bin" / "python"
        self.uv = root / "bin" / "uv"

    def create(self) -> None:
        if not self.python.exists():
            _run([BASE_PYTHON, "-m", "venv", "--without-pip", str(self.root)])

    def starts(self) -> bool:
        """Return whether its interpreter is still there: a system update may have removed that."""
        return not self.python.is_symlink() or _succeeds([str(self.python), "-c", ""], silent=True)

    def install(self, locks: list[str], projects: list[str]) -> None:
        """Install with uv, or with pip if uv fails.

        Raises:
            InstallError: if both fail.
        """
        files = [word for lock in locks for word in ("-r", lock)]
        editables = [word for project in projects for word in ("-e", project)]
        steps = [["--require-hashes", *files]] + ([["--no-build-isolation", *editables]] if editables else [])
        if self._has_uv() or self._fetch_uv():
            uv = [str(self.uv), "pip", "install", "--quiet", "--python", str(self.python), "--no-deps"]
            if all(_succeeds([*uv, *step]) for step in steps):
                return
            sys.stderr.write("uv has failed; pip takes over\n")
        pip = [*self._pip(), "--quiet", "--no-deps"]
        if not all(_succeeds([*pip, *step]) for step in steps):
            raise InstallError

    def _has_uv(self) -> bool:
        wanted = re.search(r"^uv==(\S+)", UV_LOCK.read_text(), re.MULTILINE)
        if wanted is None or not self.uv.exists():
            return False
        command = [str(self.uv), "--version"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - as _run
        return done.stdout.split()[1:2] == [wanted[1]]

    def _fetch_uv(self) -> bool:
        """Return whether pip has installed uv. Its errors are not shown: they come again when pip takes over."""
        pip = [*self._pip(), "--no-deps", "--only-binary=:all:", "--require-hashes", "-r", str(UV_LOCK)]
        return _succeeds(pip, silent=True)

    def _pip(self) -> list[str]:
        """Return the start of a pip command: the base interpreter's pip if there is one, which saves eight seconds."""
        options = ["install", "--disable-pip-version-check", "--no-compile"]
        found = importlib.util.find_spec("pip")
        runner = Path(found.origin).with_name("__pip-runner__.py") if found and found.origin else None
        if runner is not None and runner.exists():  # what `pip --python` starts, without pip's own start before it
            return [str(self.python), str(runner), *options]
        if _succeeds([BASE_PYTHON, "-c", "import pip"], silent=True):
            return [BASE_PYTHON, "-m", "pip", "--python", str(self.python), *options]
        if not _succeeds([str(self.python), "-c", "import pip"], silent=True):
            _run([str(self.python), "-m", "ensurepip"])
        return [str(self.python), "-m", "pip", *options]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("venv", type=Path)
    parser.add_argument("locks", nargs="+", metavar="LOCK")
    parser.add_argument("--project", action="append", default=[], metavar="DIRECTORY")
    options = parser.parse_args()
    root: Path = options.venv.absolute()
    root.mkdir(parents=True, exist_ok=True)
    with (root / ".installing").open("w") as lock:
        _acquire(lock, root)
        try:
            _install(root, options.locks, options.project)
        except KeyboardInterrupt:
            return 130
        except (InstallError, subprocess.CalledProcessError):
            sys.stderr.write(_FAILED.format(locks=" and ".join(options.locks)))
            return 1
    return 0


def _install(root: Path, locks: list[str], projects: list[str]) -> None:
    environment, incomplete = Environment(root), root / ".incomplete"
    if incomplete.exists() or not environment.starts():
        _empty(root)
    incomplete.touch()
    sys.stdout.write(f"installing {' and '.join(locks)} into {os.path.relpath(root)}\n")
    sys.stdout.flush()
    environment.create()
    environment.install(locks, projects)
    incomplete.unlink()


def _acquire(lock: TextIO, root: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        sys.stdout.write(f"waiting for another installation into {os.path.relpath(root)}\n")
        sys.stdout.flush()
        fcntl.flock(lock, fcntl.LOCK_EX)


def _empty(root: Path) -> None:
    """Remove all but the lock file, which another process may be waiting for."""
    for path in root.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != ".installing":
            path.unlink()


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True)  # noqa: S603 - commands of this module


def _succeeds(command: list[str], *, silent: bool = False) -> bool:
    output = subprocess.DEVNULL if silent else None
    try:
        done = subprocess.run(command, stdout=output, stderr=output, check=False)  # noqa: S603 - as _run
    except OSError:  # there is no such program
        return False
    return done.returncode == 0


if __name__ == "__main__":
    sys.exit(main())
