"""Changes to `config.toml` that keep comments, layout and unknown keys.

A change holds a lock from reading to replacing, so concurrent commands do not lose each other's changes. The new text
is parsed and compared with the intended content, written beside the file, synced and renamed over it: a reader, or a
crash, finds the old file or the new one, never a part. A level or ceiling that is set to its present value is written
all the same: a running bridge then drops the changes that its session has made to that level. A configuration behind a
symbolic link is changed at the link's target.
"""

import contextlib
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import tomlkit
from filelock import FileLock, Timeout
from tomlkit.exceptions import TOMLKitError
from tomlkit.items import AoT, Array, Comment, Table, Whitespace

from conclave.errors import ConfigError
from conclave.machine.config import Level, LocalConfig, Override, Registration, parse, read_text
from conclave.urls import same_server

LOCK_SECONDS = 10.0
"""The time that a command waits for another one that is changing the file."""

_Entry = Mapping[str, Any]


class Forgotten(msgspec.Struct, frozen=True):
    """The entries that `forget` removed: a registration if there was one, and the number of overrides."""

    registered: bool
    overrides: int


def register(path: Path, registration: Registration) -> None:
    """Record a registration. One of the same server is changed in place, and its URL gets the new spelling."""

    def matches(entry: _Entry) -> bool:
        return same_server(entry["url"], registration.url)

    with _rewriting(path) as document:
        _put(document, "servers", matches, msgspec.to_builtins(registration))


def pin(path: Path, url: str, cluster: str | None, over: str | None) -> bool:
    """Record the cluster that is expected at a registered server, None for any. Return True if the file was changed.

    The file stays untouched if the present value is not `over`, or if the server is not registered.
    """
    with _rewriting(path) as document:
        entries = (entry for entry in _entries(document, "servers") or () if same_server(entry["url"], url))
        entry = next(entries, None)
        if entry is None or entry.get("cluster") != over:
            return False
        if cluster is None:
            entry.pop("cluster", None)
        else:
            _set(entry, "cluster", cluster)
        return True


def forget(path: Path, url: str) -> Forgotten:
    """Remove a server's registration and all its overrides; without either, the file stays untouched."""
    with _rewriting(path) as document:
        registrations = _remove(document, "servers", lambda entry: same_server(entry["url"], url))
        overrides = _remove(document, "overrides", lambda entry: same_server(entry["server"], url))
    return Forgotten(registered=registrations > 0, overrides=overrides)


def set_default(path: Path, level: Level) -> None:
    """Set the level of channels and whispers without an override."""
    with _rewriting(path, always=True) as document:
        document["default_permission"] = level.value


def unset_default(path: Path) -> bool:
    """Return to the built-in default level; True if the file had one of its own."""
    return _unset(path, "default_permission")


def set_ceiling(path: Path, level: Level) -> None:
    """Set the level up to which an agent may raise its own."""
    with _rewriting(path, always=True) as document:
        document["permission_ceiling"] = level.value


def unset_ceiling(path: Path) -> bool:
    """Return to the built-in ceiling; True if the file had one of its own."""
    return _unset(path, "permission_ceiling")


def set_override(path: Path, override: Override) -> None:
    """Set the level of a channel, or of whispers; an override of the same scope is changed in place."""

    def matches(entry: _Entry) -> bool:
        return same_server(entry["server"], override.server) and entry.get("channel") == override.channel

    with _rewriting(path, always=True) as document:
        _put(document, "overrides", matches, msgspec.to_builtins(override))


def remove_override(path: Path, server: str, channel: str | None) -> bool:
    """Remove the override of a channel, or of whispers; True if there was one."""

    def matches(entry: _Entry) -> bool:
        return same_server(entry["server"], server) and entry.get("channel") == channel

    with _rewriting(path) as document:
        removed = _remove(document, "overrides", matches)
    return removed > 0


def _unset(path: Path, key: str) -> bool:
    with _rewriting(path) as document:
        named = key in document
        if named:
            document.remove(key)
    return named


# --- The file ---


@contextlib.contextmanager
def _rewriting(path: Path, wait: float = LOCK_SECONDS, *, always: bool = False) -> Iterator[tomlkit.TOMLDocument]:
    """Lock the file, yield its document for a change, and write it back; an unchanged one only with `always`."""
    try:
        real = Path(os.path.realpath(path))  # not resolve(): a link to itself then fails like any other bad path
        real.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with FileLock(real.with_name(f"{real.name}.lock"), timeout=wait):
            before = read_text(real)
            parse(before, path)
            document = tomlkit.parse(before)
            yield document
            after = document.as_string()
            if always or after != before:
                _check(before, after, document, path)
                _replace(real, after.encode())
    except Timeout as error:
        raise ConfigError(f"failed to lock config `{path}`: another command has held it for {wait:.0f} s") from error
    except TOMLKitError as error:
        raise ConfigError(f"failed to change config `{path}`: {error}") from error
    except OSError as error:
        raise ConfigError(f"failed to write config `{path}`: {error.strerror}") from error


def _check(before: str, after: str, document: tomlkit.TOMLDocument, path: Path) -> None:
    """Raise if the text does not parse to the content of the document; the file then stays as it is."""
    parsed = parse(after, path)
    intended = msgspec.convert(document.unwrap(), LocalConfig)
    if parsed != intended:
        raise ConfigError(f"failed to change config `{path}`: its layout is too unusual; {len(before)} bytes unchanged")


def _replace(path: Path, content: bytes) -> None:
    draft = path.with_name(f"{path.name}.tmp")  # under the lock one name is enough, and a crash leaves at most one file
    draft.unlink(missing_ok=True)
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666), "wb") as file:
            if path.exists():
                draft.chmod(stat.S_IMODE(path.stat().st_mode))
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


# --- The document ---


def _entries(document: tomlkit.TOMLDocument, key: str) -> AoT | Array | None:
    """Return the list under `key` in either spelling: `[[key]]` tables or one array of inline tables."""
    found = document.get(key)
    return found if isinstance(found, AoT | Array) else None


def _put(document: tomlkit.TOMLDocument, key: str, matches: Callable[[_Entry], bool], fields: dict[str, str]) -> None:
    """Change the first entry that matches and remove further ones, or add an entry at the end."""
    entries = _entries(document, key)
    found = [index for index, entry in enumerate(entries or ()) if matches(entry)]
    if entries is not None and found:
        for name, value in fields.items():
            if entries[found[0]].get(name) != value:
                _set(entries[found[0]], name, value)
        for index in reversed(found[1:]):
            _drop(document, key, index)
        return
    if isinstance(entries, Array) and len(entries) > 0:
        inline = tomlkit.inline_table()
        inline.update(fields)
        entries.append(inline)
        return
    if isinstance(entries, Array):  # an empty `key = []` becomes tables, which are easier to read
        document.remove(key)
        entries = None
    table = tomlkit.table()
    table.update(fields)
    table.trivia.indent = "\n" if document.as_string().strip() else ""
    if isinstance(entries, AoT):
        successor = _following(document, key, len(entries))
        if successor is not None:
            successor.trivia.indent = (_take_trailing(entries[-1]) or "\n") + successor.trivia.indent
        entries.append(table)
    else:
        document.append(key, tomlkit.aot())
        document[key].append(table)


def _set(entry: Any, name: str, value: str) -> None:
    """Set a value of an entry, before the comments below its last key: they belong to the next entry."""
    kept = _take_trailing(entry) if isinstance(entry, Table) and name not in entry else ""
    entry[name] = value
    if kept:
        entry.add(tomlkit.ws(kept))


def _remove(document: tomlkit.TOMLDocument, key: str, matches: Callable[[_Entry], bool]) -> int:
    found = [index for index, entry in enumerate(_entries(document, key) or ()) if matches(entry)]
    for index in reversed(found):
        _drop(document, key, index)
    return len(found)


def _drop(document: tomlkit.TOMLDocument, key: str, index: int) -> None:
    """Delete an entry, but not the comments below its last key: they belong to the next entry."""
    entries = _entries(document, key)
    if entries is None:
        return
    entry = entries[index]
    if isinstance(entry, Table):
        kept = _take_trailing(entry)
        successor = _following(document, key, index + 1)
        if "#" not in kept:
            pass
        elif successor is not None:
            successor.trivia.indent = kept + successor.trivia.indent
        else:
            document.add(tomlkit.ws(kept))
    del entries[index]
    if isinstance(entries, AoT) and not entries:
        document.remove(key)


def _take_trailing(entry: Table) -> str:
    """Remove the blank lines and comments at the end of an entry and return them."""
    body = entry.value.body
    tail = ""
    while body and body[-1][0] is None and isinstance(body[-1][1], Comment | Whitespace):
        tail = body.pop()[1].as_string() + tail
    return tail


def _following(document: tomlkit.TOMLDocument, key: str, index: int) -> Table | None:
    """Return the table that follows the first `index` entries of `key` in the file."""
    entries = _entries(document, key)
    if isinstance(entries, AoT) and index < len(entries):
        return entries[index]
    names = [name.key for name, item in document.body if name is not None and isinstance(item, AoT | Table)]
    if key not in names:
        return None
    for name in names[names.index(key) + 1 :]:
        item = document[name]
        if isinstance(item, AoT) and item:
            return item[0]
        if isinstance(item, Table):
            return item
    return None
