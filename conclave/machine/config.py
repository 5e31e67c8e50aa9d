"""A user's local configuration, `config.toml`: the machine's registrations, and the agent's permission levels.

This module reads it; `conclave.machine.config_edit` changes it. A server is the same server in every spelling of its
URL (`conclave.urls`).
"""

import enum
import tomllib
from functools import total_ordering
from pathlib import Path
from typing import Self

import msgspec

from conclave.errors import ConfigError
from conclave.urls import same_server


@total_ordering
class Level(enum.Enum):
    """The permissions of an agent in a channel; mute < notify < converse < act."""

    MUTE = "mute"
    NOTIFY = "notify"
    CONVERSE = "converse"
    ACT = "act"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a level; case matters.

        Raises:
            ConfigError: with the valid levels.
        """
        try:
            return cls(text)
        except ValueError:
            raise ConfigError(f"unknown permission level `{text}` (expected mute, notify, converse, or act)") from None

    def __lt__(self, other: "Level") -> bool:
        return _ASCENDING.index(self) < _ASCENDING.index(other)

    @property
    def may_emit(self) -> bool:
        """True if an agent at this level may send messages."""
        return self >= Level.CONVERSE


_ASCENDING = tuple(Level)


class Registration(msgspec.Struct, frozen=True, omit_defaults=True):
    """The identity of this machine at a server. `url` is spelt as the user gave it.

    `cluster` is the id of the cluster that is expected there (`conclave.client.trust`), None if it is not known.
    """

    url: str
    username: str
    machine: str
    cluster: str | None = None


class Override(msgspec.Struct, frozen=True, omit_defaults=True):
    """The level for one channel of a server; without a channel, for whispers."""

    server: str
    level: Level
    channel: str | None = None

    def covers(self, server: str, channel: str | None) -> bool:
        return same_server(self.server, server) and self.channel == channel


class LocalConfig(msgspec.Struct, frozen=True):
    """The content of the file; unknown keys are ignored.

    `permission_ceiling` is the level up to which an agent may raise its own, even if the owner has set less.
    """

    default_permission: Level = Level.NOTIFY
    servers: tuple[Registration, ...] = ()
    overrides: tuple[Override, ...] = ()
    permission_ceiling: Level = Level.CONVERSE

    def registration(self, url: str) -> Registration | None:
        return next((entry for entry in self.servers if same_server(entry.url, url)), None)

    def level(self, server: str, channel: str | None) -> Level:
        """Return the level for a channel, or for whispers (None): the first override that covers it, or the default."""
        covering = (entry.level for entry in self.overrides if entry.covers(server, channel))
        return next(covering, self.default_permission)


def load(path: Path) -> LocalConfig:
    """Read the file; a missing one means the defaults.

    Raises:
        ConfigError: if it cannot be read, or is invalid.
    """
    return parse(read_text(path), path)


def read_text(path: Path) -> str:
    """Return the file's text, empty where there is no file.

    Raises:
        ConfigError: if it cannot be read.
    """
    try:
        return path.read_bytes().decode()
    except FileNotFoundError:
        return ""
    except UnicodeDecodeError as error:
        raise ConfigError(f"failed to parse config `{path}`: it is not UTF-8 text") from error
    except OSError as error:
        raise ConfigError(f"failed to read config `{path}`: {error.strerror}") from error


def parse(text: str, path: Path) -> LocalConfig:
    """Read a configuration's text; `path` is for the error message only.

    Raises:
        ConfigError: with the position of the mistake.
    """
    try:
        return msgspec.convert(tomllib.loads(text), LocalConfig)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError, RecursionError) as error:
        raise ConfigError(f"failed to parse config `{path}`: {error}") from error
