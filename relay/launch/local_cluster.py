"""A local cluster, from start to end: a private store, several nodes as processes, and a balancer."""

import asyncio
import errno
import os
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol

import msgspec

from conclave.errors import ConfigError
from conclave.signals import until_signalled
from relay.launch.balancer import Address, Balancer
from relay.launch.node_process import NodeProcess
from relay.model.errors import NodeFailure
from relay.store import PrivateServer

START_SECONDS = 30.0
_POLL_SECONDS = 0.05
_HIGHEST_PORT = 65_535
_LOOPBACK = "127.0.0.1"

_SETTINGS = {
    # All nodes end together, so no session has to move to another one.
    "DRAIN_DELAY": "0",
    "DRAIN_SECONDS": "1",
    # The nodes cannot share one port for metrics; an empty value means none.
    "METRICS_BIND": "",
    # They are those of another Redis than the cluster's own.
    "REDIS_PASSWORD": "",
    "REDIS_READ_URL": "",
}


class Plan(msgspec.Struct, frozen=True):
    """The cluster to run.

    `command` starts a node: it takes the flags of `conclave serve`, and ends when its standard input does.
    """

    host: str
    port: int
    nodes: int
    data_dir: Path
    command: tuple[str, ...]

    @property
    def addresses(self) -> list[Address]:
        """The addresses of the nodes: on loopback, at the ports that follow the balancer's."""
        return [(_LOOPBACK, self.port + number) for number in range(1, self.nodes + 1)]


class ClusterObserver(Protocol):
    """The receiver of a local cluster's events."""

    def serving(self, nodes: Sequence[NodeProcess]) -> None:
        """All nodes are ready."""

    def lost(self, node: NodeProcess) -> None:
        """A node has ended without being told to."""

    def stopping(self) -> None:
        """The cluster is about to stop."""


async def run(plan: Plan, observer: ClusterObserver) -> None:
    """Serve until a signal. On return, no process that was started is left.

    Raises:
        ConfigError: a port is taken, or the data directory cannot be used.
        NodeFailure: a node does not start, no node is left, or the store cannot go on.
    """
    await until_signalled(_serve(plan, observer), observer.stopping)


async def _serve(plan: Plan, observer: ClusterObserver) -> None:
    _check_ports(plan)
    store = await PrivateServer.start(plan.data_dir)
    try:
        async with Balancer(plan.addresses) as balancer, _nodes(plan, store.url) as nodes:
            await _wait_until_ready(nodes, balancer)
            await _open_port(plan, balancer)
            observer.serving(nodes)
            await _supervise(store, nodes, observer)
    finally:
        await store.stop()


@asynccontextmanager
async def _nodes(plan: Plan, store_url: str) -> AsyncIterator[list[NodeProcess]]:
    """Start the nodes, and stop them at the end, while the balancer still forwards their goodbyes."""
    nodes: list[NodeProcess] = []
    environment = {**os.environ, **{f"CONCLAVE_{name}": value for name, value in _SETTINGS.items()}}
    try:
        for number, (host, port) in enumerate(plan.addresses, 1):
            command = [*plan.command, "--bind", f"{host}:{port}", "--redis-url", store_url]
            log = plan.data_dir / f"node-{number}.log"
            nodes.append(await NodeProcess.spawn(number, (host, port), log, command, environment))
        yield nodes
    finally:
        await asyncio.gather(*(node.stop() for node in nodes))


async def _wait_until_ready(nodes: list[NodeProcess], balancer: Balancer) -> None:
    try:
        async with asyncio.timeout(START_SECONDS):
            while len(balancer.ready) < len(nodes):
                for node in nodes:
                    if node.end is not None:
                        raise NodeFailure(f"node {node.number} {node.end} (its log: {node.log})")
                await asyncio.sleep(_POLL_SECONDS)
    except TimeoutError:
        late = [str(node.log) for node in nodes if node.address not in balancer.ready]
        raise NodeFailure(f"not ready within {START_SECONDS:g} s; see {', '.join(late)}") from None


async def _open_port(plan: Plan, balancer: Balancer) -> None:
    try:
        await balancer.listen(plan.host, plan.port)
    except OSError as error:
        raise NodeFailure(f"cannot listen at {plan.host}:{plan.port}: {error.strerror}") from error


async def _supervise(store: PrivateServer, nodes: list[NodeProcess], observer: ClusterObserver) -> None:
    """Keep the store running and report nodes that end. Raises: NodeFailure, once the cluster cannot go on."""
    running = [asyncio.create_task(store.supervise()), asyncio.create_task(_watch(nodes, observer))]
    try:
        done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in running:
            task.cancel()


async def _watch(nodes: list[NodeProcess], observer: ClusterObserver) -> None:
    async def tell(node: NodeProcess) -> None:
        await node.wait()
        observer.lost(node)

    await asyncio.gather(*map(tell, nodes))
    raise NodeFailure("no node is left")


def _check_ports(plan: Plan) -> None:
    """Check all ports before anything is started, so that one error names every port that is in use.

    Raises:
        ConfigError: with the ports that are in use, or why the address cannot be used.
    """
    last = plan.port + plan.nodes
    if not 0 < plan.port <= last <= _HIGHEST_PORT:
        raise ConfigError(f"the ports {plan.port} to {last} do not exist: choose others")
    taken = [port for host, port in [(plan.host, plan.port), *plan.addresses] if not _is_free(host, port)]
    if taken:
        ports = ", ".join(map(str, taken))
        raise ConfigError(
            f"in use by another program: port {ports} of {plan.port} to {last}, which {plan.nodes} nodes need; "
            f"end it, or choose other ports: --bind {plan.host}:{_other_port(plan)}, or make cluster BIND=…"
        )


def _is_free(host: str, port: int) -> bool:
    try:
        for family, kind, protocol, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
            with socket.socket(family, kind, protocol) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(address)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return False
        raise ConfigError(f"cannot listen at {host}:{port}: {error.strerror}") from error
    return True


def _other_port(plan: Plan) -> int:
    """Return a port 100 higher, or 100 lower near the top of the range."""
    return plan.port + 100 if plan.port + 100 + plan.nodes <= _HIGHEST_PORT else plan.port - 100
