"""`conclave bench`."""

from typing import TYPE_CHECKING

import click
import msgspec

from cli import output
from cli.lazy import Verb
from cli.options import server_option
from cli.run_async import run
from cli.settings import key_path
from conclave.machine.keys import load

if TYPE_CHECKING:
    from cli.benchmark import Quantiles, Report


@click.command("bench", cls=Verb, example="conclave bench --server wss://chat.example --sessions 50 --seconds 20")
@server_option
@click.option(
    "--sessions", type=click.IntRange(2, 1000), default=10, show_default=True, help="Sessions; one posts, all listen."
)
@click.option(
    "--seconds",
    type=click.FloatRange(0.5, 300),
    default=10.0,
    show_default=True,
    help="The duration, after the sessions are connected.",
)
@click.option(
    "--in-flight",
    type=click.IntRange(2, 64),
    default=8,
    show_default=True,
    help="Posts without a reply at any time, in the second half.",
)
@click.option("--size", type=click.IntRange(1, 100_000), default=200, show_default=True, help="Bytes of each message.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
def command(*, server: str, sessions: int, seconds: float, in_flight: int, size: int, as_json: bool) -> None:
    """Measure what connections, posts and deliveries take at a server.

    This machine opens several sessions in a private channel of its own, posts there, and deletes the channel at the
    end. In the first half of the time each post waits until the one before has arrived everywhere; in the second half
    several are in flight. A post's latency is until its reply, a delivery's until another session has the message.

    One command can load a server with some thousand deliveries a second; for more, run several at once, from several
    machines. docs/performance.md says how to size a server by the results.
    """
    from cli.benchmark import measure  # noqa: PLC0415 - with its imports; not needed for the help

    report = run(measure(server, load(key_path()), sessions=sessions, seconds=seconds, in_flight=in_flight, size=size))
    if as_json:
        output.document(msgspec.to_builtins(report))
        return
    for line in _lines(report):
        output.data(line)


def _lines(report: "Report") -> list[str]:
    rows = [_row("connect and join", report.connect_ms, f"{report.sessions} sessions, protocol v{report.protocol}")]
    for name, phase in (("one at a time", report.one_at_a_time), ("in flight", report.in_flight)):
        rows += [
            _row(f"post, {name}", phase.post_ms, f"{phase.posts_per_second:,.0f} posts/s"),
            _row(f"delivery, {name}", phase.delivery_ms, f"{phase.deliveries_per_second:,.0f} deliveries/s"),
        ]
    return [f"{'':<24}{'p50 ms':>10}{'p99 ms':>10}", *rows]


def _row(name: str, quantiles: "Quantiles", remark: str) -> str:
    return f"{name:<24}{quantiles.p50:>10.1f}{quantiles.p99:>10.1f}   {remark}"
