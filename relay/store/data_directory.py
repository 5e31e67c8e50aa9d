"""The data directory: its locks, and a path to its socket that is short enough."""

import fcntl
import os
import sys
import tempfile
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Self

from conclave.errors import ConfigError

LOCK = "lock"
SERVER_LOCK = "server.lock"
ENDING_SECONDS = 1.0
SOCKET = "valkey.sock"

# sun_path with its final zero: 108 bytes on Linux, 104 on macOS and the BSDs.
SOCKET_PATH_BYTES = (108 if sys.platform == "linux" else 104) - 1


class DataDirectory:
    """A directory that this process has locked until `close`; the kernel unlocks it if the process dies.

    The server holds a second lock, `server.lock`: it is free exactly when no server writes here.
    """

    def __init__(self, path: Path) -> None:
        """Create the directory if it is missing (mode 0700) and lock it.

        Raises:
            ConfigError: it cannot be created or locked, or another relay uses it.
        """
        self.path = Path(os.path.abspath(path))  # noqa: PTH100 - not resolve(): the owner may use links
        self._held = ExitStack()
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = _lock_soon(self.path / LOCK)
        except OSError as error:
            raise ConfigError(f"the data directory `{path}` cannot be used: {error.strerror}") from error
        if descriptor is None:
            owner = _pid_in(self.path / LOCK) or "unknown"
            raise ConfigError(f"the data directory `{path}` is in use by another relay (process {owner})")
        self._held.callback(os.close, descriptor)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, b"%d\n" % os.getpid(), 0)
        try:
            self.socket = self._short_socket_path()
        except BaseException:
            self._held.close()
            raise

    def close(self) -> None:
        self._held.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def lock_for_server(self) -> int | None:
        """Return a locked descriptor for a new server to inherit, or None while an earlier server still lives."""
        return _try_lock(self.path / SERVER_LOCK)

    def server_pid(self) -> int | None:
        """Return the process id of the server that was started here last."""
        return _pid_in(self.path / SERVER_LOCK)

    def _short_socket_path(self) -> Path:
        """Return the socket's own path if it is short enough, else one through a link in a private directory."""
        direct = self.path / SOCKET
        if _fits(direct):
            return direct
        for base in (tempfile.gettempdir(), "/tmp"):  # noqa: S108 - mkdtemp makes it private
            with suppress(OSError):
                folder = Path(tempfile.mkdtemp(prefix="conclave-", dir=base))
                self._held.callback(_remove_alias, folder)
                (folder / "d").symlink_to(self.path)
                if _fits(folder / "d" / SOCKET):
                    self._keep_from_cleaners(folder)
                    return folder / "d" / SOCKET
        raise ConfigError(f"the data directory `{self.path}` has too long a path for a Unix socket")

    def _keep_from_cleaners(self, folder: Path) -> None:
        """Lock the directory: systemd-tmpfiles does not clean up a directory that is locked."""
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        self._held.callback(os.close, descriptor)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _fits(path: Path) -> bool:
    return len(os.fsencode(path)) <= SOCKET_PATH_BYTES


def _remove_alias(folder: Path) -> None:
    with suppress(OSError):
        (folder / "d").unlink(missing_ok=True)
        folder.rmdir()


def _lock_soon(path: Path) -> int | None:
    """Lock the file; wait up to a second for a relay that is just ending, whose threads may still hold it."""
    deadline = time.monotonic() + ENDING_SECONDS
    while (descriptor := _try_lock(path)) is None and time.monotonic() < deadline:
        time.sleep(0.02)
    return descriptor


def _try_lock(path: Path) -> int | None:
    """Return a descriptor that holds the file's lock, or None if another process does. Children do not inherit it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _pid_in(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None
