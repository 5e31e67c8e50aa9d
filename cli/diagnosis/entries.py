"""Claude Code's own files: the MCP servers that a session in a directory starts, and the managed settings.

The files belong to another program. They are read, never written, and their content may be anything.
"""

import enum
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

import msgspec
import orjson

COMMANDS = frozenset({"conclave", "conclave-cli"})


class Scope(enum.Enum):
    """The sessions that start a server: those of this user here, of everybody here, or of this user everywhere."""

    LOCAL = "local"
    PROJECT = "project"
    USER = "user"


class Entry(msgspec.Struct, frozen=True):
    """An MCP server that Claude Code starts, with `words` as command line; `folder` is the directory of its scope.

    `environment` has the variables that it gets besides Claude Code's own.
    """

    name: str
    scope: Scope
    folder: Path
    words: tuple[str, ...]
    environment: Mapping[str, str] = msgspec.field(default_factory=dict)

    @property
    def starts_bridge(self) -> bool:
        names = [PurePath(word).name for word in self.words]
        return "bridge" in names and not COMMANDS.isdisjoint(names[: names.index("bridge")])

    @property
    def handle(self) -> str | None:
        """The value of `--as`, None without it."""
        return next(reversed(self._given("--as")), None)

    @property
    def servers(self) -> tuple[str, ...]:
        """The values of `--server`."""
        return tuple(self._given("--server"))

    @property
    def configuration(self) -> str | None:
        """The value of `--config-dir`, None without it."""
        return next(reversed(self._given("--config-dir")), None)

    def _given(self, option: str) -> list[str]:
        """Return all values of an option of the command line."""
        values = []
        for word, following in zip(self.words, (*self.words[1:], None), strict=True):
            if word.startswith(f"{option}="):
                values.append(word.removeprefix(f"{option}="))
            elif word == option and following is not None:
                values.append(following)
        return values


class Entries(msgspec.Struct, frozen=True):
    """The entries that start a bridge or have its name. `unread` has the reason for each file that cannot be read."""

    found: tuple[Entry, ...] = ()
    unread: tuple[str, ...] = ()


def read_entries(directory: Path, user_file: Path) -> Entries:
    """Return the entries that apply to a session in `directory`; `user_file` is Claude Code's own `.claude.json`.

    Of several entries with one name the nearest one applies as a whole, as in Claude Code.
    """
    unread: list[str] = []
    user = _read(user_file, unread)
    entries = [entry for folder in _project_keys(directory) for entry in _local(user, folder)]
    for folder in (directory, *directory.parents):
        entries += _servers(_read(folder / ".mcp.json", unread), Scope.PROJECT, folder)
    entries += _servers(user, Scope.USER, user_file.parent)
    nearest = {entry.name: entry for entry in reversed(entries)}
    ours = (nearest[name] for name in dict.fromkeys(entry.name for entry in entries))
    return Entries(tuple(entry for entry in ours if entry.starts_bridge or entry.name in COMMANDS), tuple(unread))


class Policy(msgspec.Struct, frozen=True):
    """The managed settings of a machine. `forbids`: they switch channels off. `unread`: why they are not known."""

    path: Path
    forbids: bool = False
    unread: str | None = None


def read_policy(path: Path) -> Policy:
    unread: list[str] = []
    enabled = _at(_read(path, unread)).get("channelsEnabled")
    return Policy(path, enabled is False, unread[0] if unread else None)


def _project_keys(directory: Path) -> list[Path]:
    """Return the directories under which the settings for `directory` may be stored: itself, and its repository."""
    try:
        root = next((folder for folder in (directory, *directory.parents) if (folder / ".git").exists()), directory)
    except OSError:
        root = directory
    return list(dict.fromkeys((directory, root)))


def _local(user: Any, folder: Path) -> list[Entry]:
    return _servers(_at(user, "projects", str(folder)), Scope.LOCAL, folder)


def _servers(value: Any, scope: Scope, folder: Path) -> list[Entry]:
    found = []
    for name, server in _at(value, "mcpServers").items():
        command, arguments = _at(server).get("command"), _at(server).get("args")
        if isinstance(command, str):
            words = [word for word in arguments if isinstance(word, str)] if isinstance(arguments, list) else []
            environment = {key: value for key, value in _at(server, "env").items() if isinstance(value, str)}
            found.append(Entry(name, scope, folder, (command, *words), environment))
    return found


def _at(value: Any, *keys: str) -> dict[str, Any]:
    """Return the object at a path of keys; empty if there is none."""
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value if isinstance(value, dict) else {}


def _read(path: Path, unread: list[str]) -> Any:
    """Return the JSON of a file, None without one. The reason of a failure is added to `unread`."""
    try:
        if not path.exists():
            return None
        if not path.is_file():  # reading a pipe might never end
            unread.append(f"`{path}` is no file")
            return None
        return orjson.loads(path.read_bytes())
    except OSError as error:
        unread.append(f"`{path}` cannot be read: {error.strerror}")
    except ValueError as error:
        unread.append(f"`{path}` cannot be read: {error}")
    return None
