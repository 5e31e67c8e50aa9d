"""The facts that the checks judge, gathered concurrently."""

import asyncio
import os
import re
import shutil
import stat
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path

import msgspec

from cli.diagnosis.ancestors import Process, claude_above, this_system
from cli.diagnosis.entries import COMMANDS, Entries, Policy, read_entries, read_policy
from cli.diagnosis.probes import Probe, probe_all
from cli.diagnosis.programs import first_match
from conclave.errors import ConfigError, KeyFileError
from conclave.machine.config import LocalConfig
from conclave.machine.config import load as load_config
from conclave.machine.keys import MachineKey
from conclave.machine.keys import load as load_key
from conclave.machine.locations import CONFIG_NAME, KEY_NAME

VERSION_SECONDS = 10.0
_VERSION = re.compile(r"\b(\d+)\.(\d+)\.(\d+)\b")
_POLICY_PLACES = {"darwin": "/Library/Application Support/ClaudeCode/managed-settings.json"}
_POLICY_PLACE = "/etc/claude-code/managed-settings.json"


class Place(msgspec.Struct, frozen=True):
    """The place to examine: a session's directory, environment and process, and the files that concern it."""

    directory: Path
    environment: Mapping[str, str]
    pid: int
    key_path: Path
    config_path: Path
    claude_file: Path
    policy_file: Path

    @classmethod
    def here(cls, key_path: Path, config_path: Path) -> "Place":
        """Return the place of this process."""
        folder = os.environ.get("CLAUDE_CONFIG_DIR")
        return cls(
            directory=Path.cwd(),
            environment=os.environ,
            pid=os.getppid(),
            key_path=key_path,
            config_path=config_path,
            claude_file=(Path(folder) if folder else Path.home()) / ".claude.json",
            policy_file=Path(_POLICY_PLACES.get(sys.platform, _POLICY_PLACE)),
        )


class Commands(msgspec.Struct, frozen=True):
    """The path of `conclave` on PATH, and the folder of the running one if that is installed."""

    found: str | None
    own_folder: Path | None


class Claude(msgspec.Struct, frozen=True):
    """The path of `claude` on PATH, and its version, or in `unknown` the reason why that is not known."""

    path: str | None
    version: tuple[int, int, int] | None = None
    unknown: str = ""


class KeyFile(msgspec.Struct, frozen=True):
    """The machine's key, or in `error` the reason why there is none; `mode` is None if the file is absent."""

    path: Path
    mode: int | None
    key: MachineKey | None
    error: str = ""


class OtherDirectory(msgspec.Struct, frozen=True):
    """Another configuration directory, which an entry names. `config` is the error if it cannot be read."""

    directory: Path
    key: KeyFile
    config: LocalConfig | ConfigError


class Facts(msgspec.Struct, frozen=True):
    """Everything that the checks judge. `config` is the error if it cannot be read."""

    place: Place
    commands: Commands
    claude: Claude
    above: Process | None
    entries: Entries
    policy: Policy
    key: KeyFile
    config: LocalConfig | ConfigError
    probes: tuple[Probe, ...]
    other_directories: Mapping[str, OtherDirectory] = msgspec.field(default_factory=dict)
    """By the directory's name in the entries."""

    @property
    def inside(self) -> bool:
        """True in a Claude Code session: its process is visible, or it has set its variable."""
        return self.above is not None or bool(self.place.environment.get("CLAUDECODE"))


async def gather(place: Place) -> Facts:
    """Gather the facts. Missing, broken or slow parts neither fail it nor delay it beyond their deadlines."""
    key, config = read_key(place.key_path), _config(place.config_path)
    async with asyncio.TaskGroup() as tasks:
        claude = tasks.create_task(_claude(place))
        above = tasks.create_task(claude_above(place.pid, this_system()))
        probes = tasks.create_task(_probes(config, key.key))
    entries = read_entries(place.directory, place.claude_file)
    return Facts(
        place=place,
        commands=_commands(place),
        claude=claude.result(),
        above=above.result(),
        entries=entries,
        policy=read_policy(place.policy_file),
        key=key,
        config=config,
        probes=probes.result(),
        other_directories=_other_directories(place, entries),
    )


def _other_directories(place: Place, entries: Entries) -> dict[str, OtherDirectory]:
    """Read the configuration directories that entries name, except the one of this command."""
    here = place.config_path.parent
    named = {each.configuration for each in entries.found}
    found = {}
    for name in named:
        if name is None or "${" in name:
            continue
        directory = place.directory / name
        if directory.resolve() != here.resolve():
            found[name] = OtherDirectory(directory, read_key(directory / KEY_NAME), _config(directory / CONFIG_NAME))
    return found


def read_key(path: Path) -> KeyFile:
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except FileNotFoundError:
        mode = None
    except OSError as error:
        return KeyFile(path, 0, None, f"failed to read keyfile `{path}`: {error.strerror}")
    try:
        return KeyFile(path, mode, load_key(path))
    except KeyFileError as error:
        return KeyFile(path, mode, None, str(error))


def _config(path: Path) -> LocalConfig | ConfigError:
    try:
        return load_config(path)
    except ConfigError as error:
        return error


async def _probes(config: LocalConfig | ConfigError, key: MachineKey | None) -> tuple[Probe, ...]:
    if key is None or isinstance(config, ConfigError):
        return ()
    return await probe_all(config.servers, key)


def _commands(place: Place) -> Commands:
    own = Path(sys.argv[0])
    if own.name not in COMMANDS:
        own = Path(sysconfig.get_path("scripts"), "conclave")
    found = shutil.which("conclave", path=place.environment.get("PATH"))
    return Commands(found, own.resolve().parent if own.exists() else None)


async def _claude(place: Place) -> Claude:
    path = shutil.which("claude", path=place.environment.get("PATH"))
    if path is None:
        return Claude(None)
    try:
        found = await first_match(_VERSION, path, "--version", deadline=VERSION_SECONDS)
    except TimeoutError:
        return Claude(path, unknown=f"it did not answer within {VERSION_SECONDS:g}s")
    except OSError as error:
        return Claude(path, unknown=str(error.strerror or error))
    if found is None:
        return Claude(path, unknown="it printed none")
    return Claude(path, (int(found[1]), int(found[2]), int(found[3])))
