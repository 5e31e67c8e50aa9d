"""`conclave-conformance`: check a server by the page, from the command line.

Exit codes: 0 if every check went well, 1 if one failed, 2 if the server cannot be reached or the command is wrong.
"""

import asyncio
import json
import sys

import click
import msgspec

from conclave_conformance.client import Client, Unreachable
from conclave_conformance.company import Company
from conclave_conformance.suite import CHECKS, Outcome, chosen, run
from conclave_conformance.verdict import Check

_SHOWN_AS = {"ok": "ok", "failed": "FAILED", "skipped": "skipped"}


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("url", required=False)
@click.option("--invite", metavar="TOKEN", help="What to register with, for a server that wants it; good for 3 uses.")
@click.option("--only", metavar="PATTERN", help="Only these checks: a group, or a name with * and ?.")
@click.option("--list", "listing", is_flag=True, help="List the checks and what they check.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of lines.")
def main(url: str | None, invite: str | None, only: str | None, listing: bool, as_json: bool) -> None:
    """Check whether the server at URL speaks protocol v2 as docs/protocol.md has it.

    The server may be in use: three users with random names are registered, nobody else's channels are touched, and
    channels and keys are removed in the end. A run takes about half a minute, ten seconds of it for the login that is
    too late.

    Example: conclave-conformance ws://127.0.0.1:4390 --only 'login.*'
    """
    checks = chosen(only)
    if not checks:
        raise click.UsageError(f"no check matches {only!r}; --list shows all {len(CHECKS)}")
    if listing:
        for check in checks:
            click.echo(f"{check.name:36} {check.promise}")
        return
    if url is None:
        raise click.UsageError("a URL is missing: ws://HOST:PORT or wss://HOST")
    try:
        outcomes = asyncio.run(_examine(url, invite, checks, as_json=as_json))
    except Unreachable as error:
        click.echo(f"{url} cannot be reached: {error}", err=True)
        sys.exit(2)
    except ValueError as error:  # a URL that is none
        raise click.UsageError(f"invalid URL {url!r}: {error}") from None
    sys.exit(1 if any(each.outcome == "failed" for each in outcomes) else 0)


async def _examine(url: str, invite: str | None, checks: list[Check], *, as_json: bool) -> list[Outcome]:
    await (await Client.dial(url)).close()
    company = Company(url, invite)
    outcomes: list[Outcome] = []
    try:
        async for outcome in run(company, checks):
            outcomes.append(outcome)
            if not as_json:
                _print(outcome)
    finally:
        left = await company.disperse()
    counts = {shown: sum(each.outcome == kind for each in outcomes) for kind, shown in _SHOWN_AS.items()}
    if as_json:
        summary = {"url": url, "checks": msgspec.to_builtins(outcomes), "counts": counts, "left_behind": left}
        click.echo(json.dumps(summary, indent=2, ensure_ascii=False))
    else:
        click.echo(", ".join(f"{count} {shown}" for shown, count in counts.items() if count))
        for sentence in left:
            click.echo(sentence, err=True)
    return outcomes


def _print(outcome: Outcome) -> None:
    click.echo(f"{_SHOWN_AS[outcome.outcome]:8}{outcome.name:36}{outcome.promise}")
    for label, text in (("expected", outcome.expected), ("got", outcome.got), ("reason", outcome.reason)):
        if text is not None:
            click.echo(f"        {label}: {text}")
    if outcome.outcome == "failed":
        click.echo(f"        see {outcome.see}")
