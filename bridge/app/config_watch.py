"""Notices changes of `config.toml`, and writes that change nothing.

It polls the file twice a second, which costs next to nothing. Notifications take a library and a thread: 3.3 MiB with
watchfiles, a tenth of a whole bridge, and there is one bridge per open session.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path

from conclave.errors import ConfigError
from conclave.machine.config import LocalConfig, load

POLL_SECONDS = 0.5
STABLE_SECONDS = 0.1
"""The time that a changed file has to stay unchanged: an editor may remove it, or write it in parts."""
STABLE_POLLS = 20
"""The number of polls after which a file that keeps changing is read all the same."""

_Fingerprint = tuple[int, ...]


async def watch(
    path: Path,
    on_change: Callable[[LocalConfig], None],
    on_repeat: Callable[[], None],
    on_error: Callable[[ConfigError], None],
) -> None:
    """Call `on_change` with the content of the file, now and after each change; never returns.

    If the file was written or touched and its content is the same, `on_repeat` is called instead. A missing file stands
    for the defaults. A file that cannot be read or parsed changes nothing: `on_error` gets the reason, once for each
    version of the file.
    """
    seen: _Fingerprint = ()
    told: LocalConfig | None = None
    while True:
        found = await _stable(path, seen)
        if found != seen:
            written, seen = found[:-1] != seen[:-1], found
            try:
                config = load(path)
            except ConfigError as error:
                on_error(error)
            else:
                if config != told:
                    told = config
                    on_change(config)
                elif written:
                    on_repeat()
        await asyncio.sleep(POLL_SECONDS)


async def _stable(path: Path, seen: _Fingerprint) -> _Fingerprint:
    """Return the file's fingerprint once that is stable; without a delay if it is the one that was seen."""
    for _ in range(STABLE_POLLS):
        found = _fingerprint(path)
        if found == seen:
            return found
        seen = found
        await asyncio.sleep(STABLE_SECONDS)
    return _fingerprint(path)


def _fingerprint(path: Path) -> _Fingerprint:
    """Return values that differ between two versions of a file, or the reason why it cannot be read.

    If only the rights or the names of the file change, only the last value does.
    """
    try:
        found = path.stat()
    except OSError as error:
        return error.errno or 0, 0
    return found.st_mtime_ns, found.st_ino, found.st_dev, found.st_size, found.st_ctime_ns
