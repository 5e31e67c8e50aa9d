"""`conclave cluster`: a whole cluster on this machine."""

import asyncio
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli import output
from cli.lazy import Verb
from cli.settings import verbose
from conclave.errors import ConfigError

if TYPE_CHECKING:
    from relay.launch.local_cluster import Plan
    from relay.launch.node_process import NodeProcess

MOST_NODES = 9

# A node as a user starts it. -P: no module is imported from the current directory.
_NODE = (sys.executable, "-P", "-m", "cli.supervised", "serve")


@click.command("cluster", cls=Verb, example="conclave cluster --nodes 3 --data-dir .data")
@click.option("--nodes", type=click.IntRange(1, MOST_NODES), default=3, show_default=True, help="The number of nodes.")
@click.option(
    "--bind",
    default="127.0.0.1:4390",
    show_default=True,
    metavar="HOST:PORT",
    help="The address for clients; the nodes take the ports that follow.",
)
@click.option(
    "--data-dir",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="The directory for all data, and for the logs of the nodes.",
)
def command(nodes: int, bind: str, data_dir: Path) -> None:
    """Run a whole cluster on this machine, without a Redis of your own: to try it out, and to try to break it.

    One private store, several nodes, and a load balancer in front of them: one URL for clients. When a node dies, its
    number is printed and the others go on. Ctrl-C ends everything. Nodes read the environment variables of
    `conclave serve`.
    """
    from relay.app.config import parse_config  # noqa: PLC0415
    from relay.launch.local_cluster import Plan, run  # noqa: PLC0415
    from relay.observability import logs  # noqa: PLC0415 - not needed for help

    try:
        config = parse_config(bind=bind, data_dir=data_dir)
    except ConfigError as error:
        raise click.UsageError(str(error)) from error
    logs.configure(verbose=verbose())
    plan = Plan(config.host, config.port, nodes, data_dir, _NODE)
    asyncio.run(run(plan, _Terminal(plan)))


class _Terminal:
    """Reports the events of the cluster in the terminal."""

    def __init__(self, plan: "Plan") -> None:
        self._plan = plan

    def serving(self, nodes: "Sequence[NodeProcess]") -> None:
        plan, conclave = self._plan, _own_name()
        url = f"ws://{_reachable(plan.host)}:{plan.port}"
        addresses = f"{plan.addresses[0][0]}:{plan.port + 1}" + (f"-{plan.port + plan.nodes}" if plan.nodes > 1 else "")
        output.success(f"{plan.nodes} nodes and their store are running; clients connect to {url}")
        for node in nodes:
            host, port = node.address
            output.data(f"  node {node.number}  ws://{host}:{port}  process {node.pid}  log {node.log}")
        output.data(f"  store   {plan.data_dir}: what is said is kept there")
        output.data(f"join:   {conclave} register --server {url} --username ann")
        output.data(f"watch:  {conclave} top {addresses}")
        output.data(f"break:  kill -9 {nodes[-1].pid}")
        output.data("end:    Ctrl-C")

    def lost(self, node: "NodeProcess") -> None:
        output.failure(f"node {node.number} (process {node.pid}) {node.end}")

    def stopping(self) -> None:
        output.notice("stopping")


def _own_name() -> str:
    """Return the command by which this program can be called in this shell."""
    called = Path(sys.argv[0])
    found = shutil.which("conclave")
    if called.name != "conclave" or (found is not None and called.exists() and Path(found).samefile(called)):
        return "conclave"
    return sys.argv[0]


def _reachable(host: str) -> str:
    """Return the host to which a client on this machine connects if a server listens at `host`."""
    if host in {"0.0.0.0", "::"}:  # noqa: S104 - every address of the machine
        return "127.0.0.1" if host == "0.0.0.0" else "[::1]"  # noqa: S104
    return f"[{host}]" if ":" in host else host
