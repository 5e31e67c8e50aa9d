"""The table of checks, in the order of the output."""

from collections.abc import Callable

from cli.diagnosis import claude_code, machine, servers
from cli.diagnosis.facts import Facts
from cli.diagnosis.finding import Finding

CHECKS: dict[str, Callable[[Facts], list[Finding]]] = {
    "program": machine.program,
    "command": machine.command,
    "claude": claude_code.claude,
    "entry": claude_code.entry,
    "session": claude_code.session,
    "policy": claude_code.policy,
    "provider": claude_code.provider,
    "key": machine.key,
    "config": machine.config,
    "server": servers.server,
    "clock": servers.clock,
    "duplicate": servers.duplicate,
    "permissions": machine.permissions,
    "handle": servers.handle,
}


def examine(facts: Facts) -> list[tuple[str, Finding]]:
    """Return the findings of every check, each with the name of the check."""
    return [(name, finding) for name, check in CHECKS.items() for finding in check(facts)]
