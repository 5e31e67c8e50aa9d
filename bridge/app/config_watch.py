"""Tells when `config.toml` says something else than before, or says it again.

It looks at the file twice a second, which costs next to nothing. To be notified instead takes a library and a thread:
3.3 MiB with watchfiles, a tenth of a whole bridge, and there is one bridge per open session.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path

from conclave.errors import ConfigError
from conclave.machine.config import LocalConfig, load

LOOK_SECONDS = 0.5
SETTLE_SECONDS = 0.1
"""For how long a changed file has to stand still: it may be absent or half written while an editor saves it."""
SETTLE_LOOKS = 20
"""How often to look at a file that does not stand still before it is taken as it is."""

_Look = tuple[int, ...]


async def watch(
    path: Path,
    on_change: Callable[[LocalConfig], None],
    on_repeat: Callable[[], None],
    on_error: Callable[[ConfigError], None],
) -> None:
    """Call `on_change` with what the file says, now and whenever it says something else; never returns.

    When the file was written anew, or only touched, and says the same as before, `on_repeat` is called instead. A
    missing file says the defaults. One that cannot be read or understood changes nothing: `on_error` gets the reason,
    once for each version of the file.
    """
    seen: _Look = ()
    told: LocalConfig | None = None
    while True:
        look = await _settled(path, seen)
        if look != seen:
            written, seen = look[:-1] != seen[:-1], look
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
        await asyncio.sleep(LOOK_SECONDS)


async def _settled(path: Path, seen: _Look) -> _Look:
    """Return how the file looks once that has not changed for a moment; at once if it looks as it was seen."""
    for _ in range(SETTLE_LOOKS):
        look = _look(path)
        if look == seen:
            return look
        seen = look
        await asyncio.sleep(SETTLE_SECONDS)
    return _look(path)


def _look(path: Path) -> _Look:
    """Return what differs between two versions of a file, or the reason why it cannot be looked at.

    The last part alone differs where the file's rights or names were changed, and nothing was written.
    """
    try:
        found = path.stat()
    except OSError as error:
        return error.errno or 0, 0
    return found.st_mtime_ns, found.st_ino, found.st_dev, found.st_size, found.st_ctime_ns
