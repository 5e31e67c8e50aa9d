"""Changes to `config.toml` that keep the rest of it: comments, layout, and keys that this program does not know.

Each change holds a lock from reading to replacing, so that of two commands at once neither loses its change. The new
text is checked to say what it should, written beside the file, synced and renamed over it: a reader, and a crash,
finds the old file or the new one, never a part. A level or ceiling that is set as it was is written all the same: a
running bridge takes that for the owner's word said again. A configuration behind a symbolic link is changed where it
really is.
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
"""How long a command waits for another one that is changing the same file."""

_Entry = Mapping[str, Any]


class Forgotten(msgspec.Struct, frozen=True):
    """What `forget` removed: whether there was a registration, and how many overrides."""

    registered: bool
    overrides: int


def register(path: Path, registration: Registration) -> None:
    """Record a registration. One of the same server is changed in place and takes the new spelling of its URL."""

    def ours(entry: _Entry) -> bool:
        return same_server(entry["url"], registration.url)

    with _rewriting(path) as document:
        _put(document, "servers", ours, msgspec.to_builtins(registration))


def pin(path: Path, url: str, cluster: str | None, over: str | None) -> bool:
    """Record which cluster has to answer at a registered server, None for any, in the place of `over`.

    Where something else stands already, or nothing is registered, the file stays untouched; tell which it was.
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
    """Drop a server's registration and all its overrides; where there is none of either, the file stays untouched."""
    with _rewriting(path) as document:
        registrations = _remove(document, "servers", lambda entry: same_server(entry["url"], url))
        overrides = _remove(document, "overrides", lambda entry: same_server(entry["server"], url))
    return Forgotten(registered=registrations > 0, overrides=overrides)


def set_default(path: Path, level: Level) -> None:
    """Set the level that holds where no override does."""
    with _rewriting(path, again=True) as document:
        document["default_permission"] = level.value


def unset_default(path: Path) -> bool:
    """Go back to the default level of the program; tell whether the file named one."""
    return _unset(path, "default_permission")


def set_ceiling(path: Path, level: Level) -> None:
    """Set how far an agent may raise a level by itself."""
    with _rewriting(path, again=True) as document:
        document["permission_ceiling"] = level.value


def unset_ceiling(path: Path) -> bool:
    """Go back to the ceiling of the program; tell whether the file named one."""
    return _unset(path, "permission_ceiling")


def set_override(path: Path, override: Override) -> None:
    """Set the level of a channel, or of whispers; an override of the same scope is changed in place."""

    def ours(entry: _Entry) -> bool:
        return same_server(entry["server"], override.server) and entry.get("channel") == override.channel

    with _rewriting(path, again=True) as document:
        _put(document, "overrides", ours, msgspec.to_builtins(override))


def remove_override(path: Path, server: str, channel: str | None) -> bool:
    """Drop the override of a channel, or of whispers; tell whether there was one."""

    def ours(entry: _Entry) -> bool:
        return same_server(entry["server"], server) and entry.get("channel") == channel

    with _rewriting(path) as document:
        removed = _remove(document, "overrides", ours)
    return removed > 0


def _unset(path: Path, key: str) -> bool:
    with _rewriting(path) as document:
        named = key in document
        if named:
            document.remove(key)
    return named


# --- The file ---


@contextlib.contextmanager
def _rewriting(path: Path, wait: float = LOCK_SECONDS, *, again: bool = False) -> Iterator[tomlkit.TOMLDocument]:
    """Lend the document for a change and write it back, all under the lock; unchanged, only with `again`."""
    try:
        real = Path(os.path.realpath(path))  # not resolve(): a link to itself then fails like any other bad path
        real.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with FileLock(real.with_name(f"{real.name}.lock"), timeout=wait):
            before = read_text(real)
            parse(before, path)
            document = tomlkit.parse(before)
            yield document
            after = document.as_string()
            if again or after != before:
                _check(before, after, document, path)
                _replace(real, after.encode())
    except Timeout as error:
        raise ConfigError(f"failed to lock config `{path}`: another command has held it for {wait:.0f} s") from error
    except TOMLKitError as error:
        raise ConfigError(f"failed to change config `{path}`: {error}") from error
    except OSError as error:
        raise ConfigError(f"failed to write config `{path}`: {error.strerror}") from error


def _check(before: str, after: str, document: tomlkit.TOMLDocument, path: Path) -> None:
    """Refuse a text that does not say what the document does: better no change than a damaged configuration."""
    said = parse(after, path)
    meant = msgspec.convert(document.unwrap(), LocalConfig)
    if said != meant:
        raise ConfigError(f"failed to change config `{path}`: its layout is too unusual; {len(before)} bytes unchanged")


def _replace(path: Path, content: bytes) -> None:
    draft = path.with_name(f"{path.name}.tmp")  # one name is enough under the lock, and a crash leaves at most one
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


def _put(document: tomlkit.TOMLDocument, key: str, ours: Callable[[_Entry], bool], fields: dict[str, str]) -> None:
    """Change the first entry that is ours and drop the others that are, or add an entry at the end."""
    entries = _entries(document, key)
    mine = [index for index, entry in enumerate(entries or ()) if ours(entry)]
    if entries is not None and mine:
        for name, value in fields.items():
            if entries[mine[0]].get(name) != value:
                _set(entries[mine[0]], name, value)
        for index in reversed(mine[1:]):
            _drop(document, key, index)
        return
    if isinstance(entries, Array) and len(entries) > 0:
        inline = tomlkit.inline_table()
        inline.update(fields)
        entries.append(inline)
        return
    if isinstance(entries, Array):  # an empty `key = []`: from now on as tables, which are easier to read
        document.remove(key)
        entries = None
    table = tomlkit.table()
    table.update(fields)
    table.trivia.indent = "\n" if document.as_string().strip() else ""
    if isinstance(entries, AoT):
        heir = _following(document, key, len(entries))
        if heir is not None:
            heir.trivia.indent = (_take_trailing(entries[-1]) or "\n") + heir.trivia.indent
        entries.append(table)
    else:
        document.append(key, tomlkit.aot())
        document[key].append(table)


def _set(entry: Any, name: str, value: str) -> None:
    """Give an entry a value, before the comments below its last key: those introduce what follows."""
    kept = _take_trailing(entry) if isinstance(entry, Table) and name not in entry else ""
    entry[name] = value
    if kept:
        entry.add(tomlkit.ws(kept))


def _remove(document: tomlkit.TOMLDocument, key: str, ours: Callable[[_Entry], bool]) -> int:
    mine = [index for index, entry in enumerate(_entries(document, key) or ()) if ours(entry)]
    for index in reversed(mine):
        _drop(document, key, index)
    return len(mine)


def _drop(document: tomlkit.TOMLDocument, key: str, index: int) -> None:
    """Delete an entry, but not the comments below its last key: those introduce what follows."""
    entries = _entries(document, key)
    if entries is None:
        return
    entry = entries[index]
    if isinstance(entry, Table):
        kept = _take_trailing(entry)
        heir = _following(document, key, index + 1)
        if "#" not in kept:
            pass
        elif heir is not None:
            heir.trivia.indent = kept + heir.trivia.indent
        else:
            document.add(tomlkit.ws(kept))
    del entries[index]
    if isinstance(entries, AoT) and not entries:
        document.remove(key)


def _take_trailing(entry: Table) -> str:
    """Cut the blank lines and comments off the end of an entry and return them."""
    body = entry.value.body
    tail = ""
    while body and body[-1][0] is None and isinstance(body[-1][1], Comment | Whitespace):
        tail = body.pop()[1].as_string() + tail
    return tail


def _following(document: tomlkit.TOMLDocument, key: str, index: int) -> Table | None:
    """Return the table that comes in the file after the entries of `key` before `index`."""
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
