"""Checks of this machine: its programs, key, configuration and levels."""

import shlex
import stat
import sys
from pathlib import Path

from cli.diagnosis.facts import Facts
from cli.diagnosis.finding import Finding, ok, problem, warning
from conclave import __version__
from conclave.errors import ConfigError
from conclave.machine.config import Level, LocalConfig

REGISTER = "`conclave register --server <url> --username <you>`"

_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def program(_: Facts) -> list[Finding]:
    return [ok(f"conclave {__version__} on Python {sys.version.partition(' ')[0]} ({sys.executable})")]


def command(facts: Facts) -> list[Finding]:
    found, own = facts.commands.found, facts.commands.own_folder
    entries = facts.entries.found
    if entries and all(each.words[0] != "conclave" for each in entries):
        return [ok(f"the bridge is started as `{entries[0].words[0]}`")]
    if found is None:
        where = f"add {own} to PATH" if own is not None else "install conclave, and put it on PATH"
        return [problem("`conclave` is not on PATH, where Claude Code looks for it to start the bridge", where)]
    if own is not None and Path(found).resolve().parent != own:
        text = f"`conclave` is {found}, which is another one than what runs now (in {own})"
        return [warning(text, f"put {own} first on PATH, or remove the other one")]
    return [ok(f"`conclave` is {found}")]


def key(facts: Facts) -> list[Finding]:
    file = facts.key
    if file.key is None and file.mode is None:
        return [problem(f"this machine has no key: {file.path} is not there", f"{REGISTER} makes one")]
    if file.key is None:
        return [problem(file.error, "restore the file, or move it away and enrol a new key: `conclave key`")]
    if file.mode is not None and file.mode & _OTHERS:
        text = f"others on this machine may be able to use its key: {file.path} has mode {file.mode:04o}"
        return [warning(text, f"`{shlex.join(['chmod', '600', str(file.path)])}`")]
    return [ok(f"this machine's key is {file.key.public_text} ({file.path})")]


def config(facts: Facts) -> list[Finding]:
    if isinstance(facts.config, ConfigError):
        return [problem(str(facts.config), "repair the file by hand")]
    count = len(facts.config.servers)
    if count == 0:
        return [problem(f"this machine is registered nowhere ({facts.place.config_path})", REGISTER)]
    where = "1 server" if count == 1 else f"{count} servers"
    return [ok(f"this machine is registered at {where} ({facts.place.config_path})")]


# --- Levels ---


def permissions(facts: Facts) -> list[Finding]:
    if isinstance(facts.config, ConfigError):
        return []
    config = facts.config
    findings = [*_stray(config)]
    if config.servers and _hears_nothing(config):
        remedy = "`conclave perm set notify`, or with --server and --channel for one channel"
        return [*findings, warning("an agent here receives nothing: the level is mute everywhere", remedy)]
    count = len(config.overrides)
    overrides = "1 override" if count == 1 else f"{count} overrides"
    levels = f"by default {config.default_permission.value}, {overrides}"
    return [*findings, ok(f"levels: {levels}; an agent may raise them up to {config.permission_ceiling.value}")]


def _stray(config: LocalConfig) -> list[Finding]:
    servers = dict.fromkeys(each.server for each in config.overrides if config.registration(each.server) is None)
    return [
        warning(
            f"there are levels for {server}, where this machine is not registered",
            f"`{shlex.join(['conclave', 'server', 'remove', server])}` forgets them",
        )
        for server in servers
    ]


def _hears_nothing(config: LocalConfig) -> bool:
    known = (each.level for each in config.overrides if config.registration(each.server) is not None)
    return config.default_permission is Level.MUTE and all(level is Level.MUTE for level in known)
