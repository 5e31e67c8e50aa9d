"""Checks of Claude Code: its version, its entry for the bridge, and the permission of the bridge to push events."""

import shlex
import shutil

from cli.diagnosis.ancestors import Process
from cli.diagnosis.entries import Entry, Scope
from cli.diagnosis.facts import Facts, OtherDirectory
from cli.diagnosis.finding import Finding, ok, problem, unknown, warning
from conclave.errors import ConfigError

ADD = "claude mcp add --scope local conclave -- conclave bridge"

_MINIMUM = (2, 1, 80)  # the first with channels
_PROVIDERS = {
    "CLAUDE_CODE_USE_BEDROCK": "Amazon Bedrock",
    "CLAUDE_CODE_USE_VERTEX": "Google Cloud",
    "CLAUDE_CODE_USE_FOUNDRY": "Microsoft Foundry",
}
_PLACES = ("HOME", "XDG_CONFIG_HOME", "APPDATA", "USERPROFILE")
"""Variables that decide on the default configuration directory."""

_OFF = frozenset({"", "0", "false", "no", "off"})


def claude(facts: Facts) -> list[Finding]:
    installed = facts.claude
    needed = ".".join(map(str, _MINIMUM))
    if installed.path is None and facts.inside:
        return [unknown("the version of this Claude Code is not known: `claude` is not on PATH")]
    if installed.path is None:
        return [problem("`claude` is not on PATH", f"install Claude Code {needed} or later, or put it on PATH")]
    if installed.version is None:
        text = f"the version of `{installed.path}` is not known: {installed.unknown}"
        return [unknown(text, f"run `claude --version`: it takes {needed} or later")]
    version = ".".join(map(str, installed.version))
    if installed.version < _MINIMUM:
        return [
            problem(f"Claude Code {version} is too old for channels", f"`claude update`: it takes {needed} or later")
        ]
    return [ok(f"Claude Code {version} at {installed.path}")]


# --- The entry that starts a bridge ---


def entry(facts: Facts) -> list[Finding]:
    entries = facts.entries
    findings = [unknown(reason, "repair the file, then run this again") for reason in entries.unread]
    plugins = _plugins(facts.above)
    if not entries.found and plugins:
        findings.append(ok(f"the bridge comes with `{plugins[0]}`"))
    elif not entries.found:
        findings.append(problem(f"no MCP server entry starts a bridge in {facts.place.directory}", f"`{ADD}`"))
    findings += [_entry(each, facts) for each in entries.found]
    findings += [finding for each in entries.found if each.starts_bridge for finding in _bridge(each, facts)]
    if len(entries.found) > 1:
        names = ", ".join(f"`{each.name}`" for each in entries.found)
        remedy = f"keep one of them: {' or '.join(_remove(each) for each in entries.found[1:])}"
        findings.append(warning(f"several entries start a bridge here: {names}", remedy))
    return findings


def _entry(each: Entry, facts: Facts) -> Finding:
    what = f"the server entry `{each.name}` ({each.scope.value} scope)"
    command = shlex.join(each.words)
    if not each.starts_bridge:
        return unknown(f"{what} runs `{command}`, which may not be `conclave bridge`")
    if not _startable(each.words[0], facts):
        remedy = f"put it on PATH, or name it with its path: {_remove(each)}, then `{ADD}` with the path of `conclave`"
        return problem(f"{what} starts `{each.words[0]}`, which is not found", remedy)
    if each.scope is Scope.USER:
        remedy = f"{_remove(each)}, then `{ADD}` in each directory that takes part"
        return warning(f"{what} starts a bridge in every session of yours, also where none is wanted", remedy)
    if each.scope is Scope.LOCAL and each.folder != facts.place.directory:
        remedy = f"look at `/mcp` in the session, or start Claude Code in {each.folder}"
        return unknown(f"{what} is for {each.folder}; some versions of Claude Code ignore it here", remedy)
    return ok(f"{what} starts `{command}`")


def _bridge(each: Entry, facts: Facts) -> list[Finding]:
    """Check the start of an entry's bridge where its key and configuration are not those of this command."""
    what, named = f"the bridge of the server entry `{each.name}`", each.configuration
    own = facts.place.environment
    moved = [name for name in _PLACES if name in each.environment and each.environment[name] != own.get(name)]
    if (named is None and moved) or "${" in (named or ""):
        why = f"`--config-dir {named}`" if named is not None else ", ".join(moved)
        text = f"{what} gets {why}, so its key and configuration may not be those that are checked here"
        return [unknown(text, f"run `{_doctor('<its directory>')}`")]
    other = facts.other_directories.get(named or "")
    config = facts.config if other is None else other.config
    findings = [] if other is None else [_other(what, other)]
    if not isinstance(config, ConfigError):
        findings += [_unregistered(what, url, each) for url in each.servers if config.registration(url) is None]
    return findings


def _other(what: str, other: OtherDirectory) -> Finding:
    where = str(other.directory)
    if isinstance(other.config, ConfigError):
        return problem(f"{what} cannot start: {other.config}", "repair the file by hand")
    if not other.config.servers:
        remedy = f"`{shlex.join(['conclave', '--config-dir', where, 'register'])} --server <url> --username <you>`"
        return problem(f"{what} cannot start: {where} has no registration", remedy)
    if other.key.key is None:
        reason = other.key.error or f"{other.key.path} is not there"
        return problem(f"{what} cannot start: {reason}", "restore the key, or register anew there")
    return warning(f"{what} uses {where}; the checks below are about another directory", f"run `{_doctor(where)}`")


def _doctor(directory: str) -> str:
    return shlex.join(["conclave", "--config-dir", directory, "doctor"])


def _unregistered(what: str, url: str, each: Entry) -> Finding:
    remedy = f"register there, or take `--server` out: {_remove(each)}, then `{ADD}`"
    return problem(f"{what} cannot start: it is told to use {url}, where this machine is not registered", remedy)


def _startable(command: str, facts: Facts) -> bool:
    """Tell whether a command is on PATH. One with variables, which Claude Code expands, counts as found."""
    return "${" in command or shutil.which(command, path=facts.place.environment.get("PATH")) is not None


def _remove(each: Entry) -> str:
    return f"`{shlex.join(['claude', 'mcp', 'remove', '--scope', each.scope.value, each.name])}`"


# --- Channels: the permission to push events ---


def session(facts: Facts) -> list[Finding]:
    names = [each.name for each in facts.entries.found] or ["conclave"]
    start = shlex.join(["claude", "--dangerously-load-development-channels", f"server:{names[0]}"])
    above = facts.above
    if above is None and facts.inside:
        return [unknown("how this Claude Code was started cannot be seen from here", f"it takes `{start}`")]
    if above is None:
        return [
            unknown("this does not run in a Claude Code session, so how one was started is not known", f"`{start}`")
        ]
    who = f"this Claude Code (process {above.pid})"
    if not above.whole:
        return [unknown(f"{who} does not show how it was started", f"it takes `{start}`")]
    if above.prints:
        return [problem(f"{who} was started in print mode, which takes no channels", f"`{start}`")]
    loaded = above.development_channels
    wanted = [f"server:{name}" for name in names]
    if any(name in loaded for name in wanted):
        return [ok(f"{who} was started so that the bridge can push messages into it")]
    plugins = _plugins(above)
    if plugins:
        return [ok(f"{who} was started with the channel `{plugins[0]}`")]
    if not set(wanted).isdisjoint(above.allowed_channels):
        return [problem(f"{who} was started with --channels, which takes plugins only", f"`{start}`")]
    if loaded:
        names_loaded = ", ".join(loaded)
        return [problem(f"{who} was started with the channels {names_loaded}, not with {wanted[0]}", f"`{start}`")]
    return [problem(f"{who} was started without channels: no message arrives", f"start it as `{start}`")]


def _plugins(above: Process | None) -> list[str]:
    if above is None:
        return []
    loaded = (*above.development_channels, *above.allowed_channels)
    return [name for name in loaded if name.startswith("plugin:conclave")]


def policy(facts: Facts) -> list[Finding]:
    managed = facts.policy
    if managed.unread is not None:
        return [unknown(managed.unread)]
    if managed.forbids:
        text = f"the managed settings of this machine switch channels off ({managed.path})"
        return [problem(text, "ask its administrator to set `channelsEnabled` to true")]
    return [ok("no managed settings on this machine switch channels off")]


def provider(facts: Facts) -> list[Finding]:
    environment = facts.place.environment
    names = [name for name in _PROVIDERS if environment.get(name, "").strip().lower() not in _OFF]
    if not names:
        return [ok("no model provider without channels is configured")]
    return [
        problem(f"Claude Code has no channels with {_PROVIDERS[name]} ({name} is set)", f"unset {name}")
        for name in names
    ]
