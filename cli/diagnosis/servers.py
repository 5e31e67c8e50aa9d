"""Checks of the registered servers, and of the handle that a bridge in this directory would take there."""

import shlex
from datetime import timedelta

from bridge.connection.handles import Handle, chosen, of_directory
from cli.diagnosis.facts import Facts
from cli.diagnosis.finding import Finding, ok, problem, unknown, warning
from cli.diagnosis.probes import Answer, Probe
from conclave.errors import ConfigError, InvalidName
from conclave.urls import normalise, same_server

CLOCK_SECONDS = 60


def server(facts: Facts) -> list[Finding]:
    if facts.key.key is None and not isinstance(facts.config, ConfigError) and facts.config.servers:
        return [unknown("the servers were not asked: there is no key to log in with")]
    return [_server(probe) for probe in facts.probes]


def _server(probe: Probe) -> Finding:
    registration, answer = probe.server, probe.answer
    url = registration.url
    if answer is None and probe.refused:
        remedy = "enrol this machine's key (`conclave key` prints it) with `conclave machine add` on another machine"
        return problem(f"{url} does not let this machine in: {probe.error}", f"{remedy}, or register anew")
    if answer is None and probe.untrusted:
        remedy = f"ask its operator; if it was set up anew, {_command('conclave', 'server', 'trust', url)}"
        return problem(f"{url} may be another server: {probe.error}", remedy)
    if answer is None:
        forget = _command("conclave", "server", "remove", url)
        return problem(f"{url} cannot be used: {probe.error}", f"ask its operator; {forget} removes the registration")
    who, recorded = answer.path.rpartition("/")[0], f"{registration.username}/{registration.machine}"
    if who != recorded:
        remedy = f"{_command('conclave', 'server', 'add', url)} records that"
        return warning(f"{url} knows this machine as {who}; the registration says {recorded}", remedy)
    role = ", an admin" if answer.admin else ""
    return ok(f"{url} is there: {who}{role}, round trip {answer.round_trip_ms:.0f} ms")


def clock(facts: Facts) -> list[Finding]:
    findings = []
    for probe, answer in _answered(facts):
        seconds = round(answer.ahead_ms / 1000)
        if abs(seconds) > CLOCK_SECONDS:
            text = f"the clock of {probe.server.url} is {timedelta(seconds=abs(seconds))} "
            text += "ahead of this machine's" if seconds > 0 else "behind this machine's"
            findings.append(
                warning(text, "set this machine's clock; if that is right, tell the operator of the server")
            )
    return findings


def duplicate(facts: Facts) -> list[Finding]:
    """Report URLs that lead to one cluster; a cluster without an id is identified by its URL."""
    findings: list[Finding] = []
    first: dict[str, str] = {}
    for probe, answer in _answered(facts):
        url, server_id = probe.server.url, answer.server_id or normalise(probe.server.url)
        if server_id in first:
            findings.append(_duplicate(url, first[server_id]))
        first.setdefault(server_id, url)
    return findings


def _duplicate(url: str, known: str) -> Finding:
    forget = "take one of the two entries out of the configuration"
    if not same_server(known, url):
        forget = f"{_command('conclave', 'server', 'remove', url)} forgets the other, with its levels"
    text = f"{url} is the same server as {known}, which was configured first and names it"
    return warning(text, f"use {known} for it everywhere; {forget}")


# --- The handle ---


def handle(facts: Facts) -> list[Finding]:
    try:
        wanted = _handle(facts)
    except InvalidName as error:
        return [problem(f"the server entry gives the bridge an {error}", "give it another one after `--as`")]
    held = []
    for probe, answer in _answered(facts):
        path = f"{answer.path.rpartition('/')[0]}/{wanted.name}"
        if path in answer.sessions:
            held.append(_held(path, probe.server.url, facts.inside, wanted.explicit))
    if held:
        return held
    free = "; nobody is online under it" if _answered(facts) else ""
    return [ok(f"the handle of a bridge here is `{wanted.name}`{free}")]


def _handle(facts: Facts) -> Handle:
    wanted = next((each.handle for each in facts.entries.found if each.handle is not None), None)
    return of_directory(facts.place.directory) if wanted is None else chosen(wanted)


def _held(path: str, url: str, inside: bool, explicit: bool) -> Finding:
    if inside:
        return ok(f"{path} is online at {url}: the bridge of this session, unless another one has that handle")
    what = "the two would disconnect each other" if explicit else "one of the two would get another name"
    remedy = f"fine if that is the session you mean; a second one takes `--as` with a handle of its own, or {what}"
    return warning(f"{path} is online at {url} already", remedy)


def _answered(facts: Facts) -> list[tuple[Probe, Answer]]:
    return [(probe, probe.answer) for probe in facts.probes if probe.answer is not None]


def _command(*words: str) -> str:
    return f"`{shlex.join(words)}`"
