"""`conclave doctor`: the needs of a Claude Code session, checked one by one."""

import click
import msgspec

from cli import output
from cli.diagnosis.facts import Place, gather
from cli.diagnosis.finding import Finding, Verdict
from cli.diagnosis.table import examine
from cli.lazy import Verb
from cli.options import json_option
from cli.run_async import run
from cli.settings import config_path, key_path
from conclave.text import visible

_MARK = {Verdict.OK: "✓", Verdict.WARNING: "!", Verdict.PROBLEM: "✗", Verdict.UNKNOWN: "?"}


@click.command("doctor", cls=Verb, example="conclave doctor")
@json_option
def command(as_json: bool) -> int:
    """Find out why a Claude Code session in this directory receives no messages.

    Checks the programs, the settings of Claude Code, the key, the configuration and every registered server, and names
    a remedy for each problem. Changes nothing. Run it in the directory of the session, or in the session itself, where
    it also checks how that session was started.

    ✓ is good, ! is a warning, ✗ is a problem, ? could not be checked. Exits with 1 if there is a problem.
    """
    found = examine(run(gather(Place.here(key_path(), config_path()))))
    if as_json:
        output.document([{"check": name, **msgspec.to_builtins(finding)} for name, finding in found])
    else:
        for _, finding in found:
            _print(finding)
    return 1 if any(finding.verdict is Verdict.PROBLEM for _, finding in found) else 0


def _print(finding: Finding) -> None:
    output.data(f"{_MARK[finding.verdict]} {visible(finding.text)}")
    if finding.remedy is not None:
        output.data(f"  → {visible(finding.remedy)}")
