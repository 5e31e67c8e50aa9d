"""The cluster that is expected behind a URL: pinned at the registration, compared at every later login.

A v2 login is signed for one cluster; a client that knows the cluster does not answer the challenge of another one. A v1
login is not signed for any server, so the server that receives it can log in elsewhere with it. So where a cluster is
pinned, the client refuses v1: clusters that can be pinned support v2 on every node, and a server that does not is not
the pinned one, or hides it.

A registration without a pin gets one at its first v2 login (trust on first use). A server that supports v1 only, such
as the original's, is never pinned.
"""

import asyncio
import logging
from pathlib import Path

from conclave.errors import ConfigError, NotTrusted
from conclave.machine.config import LocalConfig, load
from conclave.urls import normalise

_log = logging.getLogger(__name__)


def check_cluster(url: str, expected: str, found: str) -> None:
    """Raise NotTrusted unless the cluster that answers is the expected one."""
    if found != expected:
        raise NotTrusted(
            f"`{url}` says it is cluster `{found}`, but `{expected}` is expected there. Somebody else may be "
            f"answering: nothing was signed. If its owner has set it up anew, run `conclave server trust {url}`"
        )


def check_upgrade(url: str, expected: str | None, told: str | None, *, version: int) -> None:
    """Check a server by its answer to the upgrade: the id that it told, if any, and the version that it chose.

    Raises:
        NotTrusted: if another cluster is expected there, or if the server cannot be proven to be the expected one.
    """
    if expected is None:
        return
    if told is not None:
        check_cluster(url, expected, told)
    if version == 1:
        raise NotTrusted(
            f"`{url}` speaks protocol v1 only, but cluster `{expected}` is expected there, which speaks v2. A v1 login "
            "can be passed on to another server: nothing was signed. If its owner has put another server there, run "
            f"`conclave server trust {url}`"
        )


class Pins:
    """The pinned clusters of a configuration, and a way to pin one that is seen for the first time."""

    def __init__(self, path: Path, config: LocalConfig) -> None:
        """Take the path of a configuration and its content."""
        self._path = path
        self._config = config
        self._unwritten: dict[str, str] = {}

    def configure(self, config: LocalConfig) -> None:
        """Replace the configuration."""
        self._config = config

    def expected(self, url: str) -> str | None:
        """Return the cluster that is expected at a URL, None if any may answer."""
        registration = self._config.registration(url)
        pinned = None if registration is None else registration.cluster
        return pinned or self._unwritten.get(normalise(url))

    async def note(self, url: str, cluster: str | None) -> bool:
        """Pin the cluster of a v2 login to a registration without a pin; return True if that was written.

        If the configuration cannot be written, the pin holds for this process only.
        """
        registration = self._config.registration(url)
        if cluster is None or registration is None or self.expected(url) is not None:
            return False
        from conclave.machine.config_edit import pin  # noqa: PLC0415 - once in the life of a registration

        try:
            pinned = await asyncio.to_thread(pin, self._path, url, cluster, None)
            self._config = load(self._path)
        except ConfigError as error:
            _log.warning("the cluster of %s is not remembered: %s", url, error)
            self._unwritten[normalise(url)] = cluster
            return False
        return pinned
