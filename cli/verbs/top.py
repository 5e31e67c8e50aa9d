"""`conclave top`: the nodes of a cluster, live."""

import asyncio
import os
import sys
from typing import TYPE_CHECKING

import click
import msgspec

from cli import output
from cli.lazy import Verb
from cli.run_async import run
from conclave.signals import until_signalled

if TYPE_CHECKING:
    from cli.dashboard.scraper import View
    from cli.dashboard.targets import Target


@click.command(
    "top",
    cls=Verb,
    example=["conclave top", "conclave top 127.0.0.1:4391-4393", "conclave top --once conclave-metrics:9464"],
)
@click.argument("nodes", metavar="[NODE]...", nargs=-1)
@click.option("--once", is_flag=True, help="Measure twice, an interval apart, print one table and end.")
@click.option("--json", "as_json", is_flag=True, help="Like --once, but print JSON.")
@click.option(
    "--interval",
    type=click.FloatRange(0.2, 60),
    default=2.0,
    show_default=True,
    metavar="SECONDS",
    help="Time from one measurement to the next.",
)
def command(nodes: tuple[str, ...], once: bool, as_json: bool, interval: float) -> int:
    """Watch the nodes of a cluster: sessions, messages, bytes and lags.

    NODE is HOST:PORT, HOST:FIRST-LAST for several ports, or a URL. A name with several addresses stands for a node at
    each. The metrics come from the node itself, so the address must be that of a node, not of a load balancer. Without
    NODE: the nodes of `conclave cluster` on this machine, or a relay on port 4390.

    Rates are per second, since the last measurement. Lags, through Redis and of the event loop, are the 99th percentile
    of the last 30 seconds. Without a terminal, the command acts as with --once, which exits with 1 if a node does not
    answer. Ctrl-C ends it.
    """
    from cli.dashboard.targets import InvalidTarget, parse_target  # noqa: PLC0415 - not needed for help

    try:
        targets = [parse_target(node) for node in nodes]
    except InvalidTarget as error:
        raise click.UsageError(str(error)) from error
    if once or as_json or not _is_terminal():
        return _print(run(_measure_twice(targets, interval)), as_json)
    run(until_signalled(_live(targets, interval)))
    return 0


def _is_terminal() -> bool:
    """Tell whether standard output is a terminal that can be drawn on."""
    return sys.stdout.isatty() and os.environ.get("TERM", "dumb") not in {"dumb", "unknown"}


async def _measure_twice(targets: "list[Target]", interval: float) -> "View":
    """Scrape twice: a rate needs two snapshots."""
    from cli.dashboard.scraper import scraping  # noqa: PLC0415 - brings the HTTP client

    async with scraping(targets) as scraper:
        await scraper.scrape()
        await asyncio.sleep(interval)
        return await scraper.scrape()


async def _live(targets: "list[Target]", interval: float) -> None:
    from cli.dashboard.scraper import scraping  # noqa: PLC0415 - brings the HTTP client
    from cli.dashboard.screen import show  # noqa: PLC0415 - brings rich

    async with scraping(targets) as scraper:
        await show(scraper.scrape, interval)


def _print(view: "View", as_json: bool) -> int:
    from cli.dashboard import layout  # noqa: PLC0415 - brings the parser of metrics

    if as_json:
        output.document(msgspec.to_builtins(view))
    else:
        for line in [layout.summary(view.totals), *layout.aligned(layout.table(view.rows))]:
            output.data(line)
    problems = layout.problems(view.rows, view.problems)
    for line in problems:
        output.notice(line)
    return 1 if problems else 0
