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
    from cli.dashboard.scrape import View
    from cli.dashboard.targets import Target


@click.command(
    "top",
    cls=Verb,
    example=["conclave top", "conclave top 127.0.0.1:4391-4393", "conclave top --once conclave-metrics:9464"],
)
@click.argument("nodes", metavar="[NODE]...", nargs=-1)
@click.option("--once", is_flag=True, help="Look twice, an interval apart, print one table and end.")
@click.option("--json", "as_json", is_flag=True, help="As --once, but print JSON.")
@click.option(
    "--interval",
    type=click.FloatRange(0.2, 60),
    default=2.0,
    show_default=True,
    metavar="SECONDS",
    help="From one look to the next.",
)
def command(nodes: tuple[str, ...], once: bool, as_json: bool, interval: float) -> int:
    """Watch the nodes of a cluster: sessions, messages, bytes, and how late everything is.

    A NODE is HOST:PORT, HOST:FIRST-LAST for several ports, or a URL. A name with several addresses means a node at
    each. It is asked for its metrics, so it has to be a node and not a balancer. Without any: the nodes of `conclave
    cluster` on this machine, or a relay on its port 4390.

    Rates are per second, since the last look; lags are those that 99 of 100 observations of the last 30 seconds did not
    exceed, on the way through Redis and in the event loop. Without a terminal it is as with --once, which exits with 1
    if a node does not answer. Ctrl-C ends it.
    """
    from cli.dashboard.targets import InvalidTarget, parse_target  # noqa: PLC0415 - not needed for help

    try:
        targets = [parse_target(node) for node in nodes]
    except InvalidTarget as error:
        raise click.UsageError(str(error)) from error
    if once or as_json or not _is_terminal():
        return _print(run(_look_twice(targets, interval)), as_json)
    run(until_signalled(_live(targets, interval)))
    return 0


def _is_terminal() -> bool:
    """Whether there is a screen to draw on."""
    return sys.stdout.isatty() and os.environ.get("TERM", "dumb") not in {"dumb", "unknown"}


async def _look_twice(targets: "list[Target]", interval: float) -> "View":
    """Two looks, because one tells no rates."""
    from cli.dashboard.scrape import watching  # noqa: PLC0415 - brings the HTTP client

    async with watching(targets) as watch:
        await watch.look()
        await asyncio.sleep(interval)
        return await watch.look()


async def _live(targets: "list[Target]", interval: float) -> None:
    from cli.dashboard.scrape import watching  # noqa: PLC0415 - brings the HTTP client
    from cli.dashboard.screen import show  # noqa: PLC0415 - brings rich

    async with watching(targets) as watch:
        await show(watch.look, interval)


def _print(view: "View", as_json: bool) -> int:
    from cli.dashboard import text  # noqa: PLC0415 - brings the parser of metrics

    if as_json:
        output.document(msgspec.to_builtins(view))
    else:
        for line in [text.summary(view.totals), *text.aligned(text.table(view.rows))]:
            output.data(line)
    problems = text.problems(view.rows, view.problems)
    for line in problems:
        output.notice(line)
    return 1 if problems else 0
