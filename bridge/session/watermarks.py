"""The positions up to which a session was shown its channels, stored from one run of the bridge to the next.

There is one file per server and session path, so bridges with different handles never write the same one; if two have
the same handle for a moment, the later write wins as a whole. A file is replaced by a rename: a reader finds the old
one or the new one. It is not synced: a power cut costs an older file, or an unreadable one that counts as empty, and
then messages are shown again.

A position belongs to the protocol version under which it was given, and is not translated: those of v2 are opaque, even
if they look like times, and those of v1 count the rows of a millisecond as one reader met them. Both versions
understand the time of the message; from there, messages of the same millisecond may be shown twice.
"""

import contextlib
import hashlib
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from conclave.client.marks import at_time
from conclave.text import visible
from conclave.urls import normalise

KEPT_SECONDS = 30 * 86_400
KEPT_CHANNELS = 1000

_log = logging.getLogger(__name__)


class Key(msgspec.Struct, frozen=True):
    """The owner of watermarks: a session path at a server (`server_key`)."""

    server: str
    session: str


class Watermark(msgspec.Struct, frozen=True):
    """The last message that was shown; `ts` is its time by the server's clock, in Unix milliseconds.

    `noted` is the local time of the entry, in Unix seconds.
    """

    position: str
    ts: int
    protocol: int
    noted: int

    def mark(self, protocol: int) -> str:
        """Return the mark to continue from under a version of the protocol."""
        return self.position if protocol == self.protocol else at_time(self.ts - 1)


class _Content(msgspec.Struct, frozen=True):
    """The content of a file. The first two fields are for people; the bridge uses the file's name."""

    server: str
    session: str
    channels: dict[str, Watermark]


def server_key(server_id: str | None, url: str) -> str:
    """Return the identity of a server: its id if it has told one, otherwise its URL."""
    return visible(server_id) if server_id else normalise(url)


class Watermarks:
    """The watermarks of one bridge: read from a file at the first use, and kept in memory until `save`."""

    def __init__(self, directory: Path, now: Callable[[], float] = time.time) -> None:
        """Store them below `directory`, which need not exist."""
        self._directory = directory / "watermarks"
        self._now = now
        self._channels: dict[Key, dict[str, Watermark]] = {}
        self._unsaved: set[Key] = set()
        self._failing = False
        self._tidy()

    def get(self, key: Key, channel: str) -> Watermark | None:
        return self._of(key).get(channel)

    def note(self, key: Key, channel: str, position: str, *, ts: int, protocol: int) -> None:
        """Set a channel's watermark, forward or back."""
        self._of(key)[channel] = Watermark(position, ts, protocol, int(self._now()))
        self._unsaved.add(key)

    def save(self) -> None:
        """Write the changed files. A failure is logged once until a write succeeds; the next call tries again."""
        for key in list(self._unsaved):
            self._channels[key] = self._kept(self._channels[key])
            try:
                self._write(key)
            except (OSError, UnicodeEncodeError) as error:
                if not self._failing:
                    _log.warning("watermarks cannot be saved below `%s`: %s", self._directory, error)
                self._failing = True
            else:
                self._unsaved.discard(key)
                self._failing = False

    def _of(self, key: Key) -> dict[str, Watermark]:
        if key not in self._channels:
            self._channels[key] = self._kept(self._read(key))
        return self._channels[key]

    def _kept(self, channels: dict[str, Watermark]) -> dict[str, Watermark]:
        """Return the newest entries, up to the limits of age and number."""
        oldest = self._now() - KEPT_SECONDS
        by_age = sorted(channels.items(), key=lambda entry: entry[1].noted)
        return {channel: watermark for channel, watermark in by_age[-KEPT_CHANNELS:] if watermark.noted > oldest}

    # --- Files ---

    def _path(self, key: Key) -> Path:
        digest = hashlib.sha256(msgspec.json.encode(key)).hexdigest()
        return self._directory / f"{digest[:32]}.json"

    def _read(self, key: Key) -> dict[str, Watermark]:
        path = self._path(key)
        try:
            return msgspec.json.decode(path.read_bytes(), type=_Content).channels
        except FileNotFoundError:
            return {}
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            _log.warning("watermarks cannot be read from `%s`, and count as none: %s", path, error)
            return {}

    def _write(self, key: Key) -> None:
        content = msgspec.json.encode(_Content(key.server, key.session, self._channels[key]))
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self._path(key)
        draft = path.with_suffix(f".{os.getpid()}.tmp")
        try:
            with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                file.write(content)
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)

    def _tidy(self) -> None:
        """Remove files whose entries are all too old, and drafts of a bridge that crashed."""
        oldest = self._now() - KEPT_SECONDS
        with contextlib.suppress(OSError):  # there is no directory yet, or another bridge removes them as well
            for entry in self._directory.iterdir():
                if entry.stat().st_mtime < oldest:
                    entry.unlink()
