"""Several nodes, their store and a balancer on this machine, from start to end."""

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
    # Nobody has to be moved to another node when all of them end.
    "DRAIN_DELAY": "0",
    "DRAIN_SECONDS": "1",
    # Three nodes cannot share a port; an empty value is none.
    "METRICS_BIND": "",
}


class Plan(msgspec.Struct, frozen=True):
    """What is to run.

    `command` starts a node: it takes the flags of `conclave serve`, and ends when its standard input does.
    """

    host: str
    port: int
    nodes: int
    data_dir: Path
    command: tuple[str, ...]

    @property
    def addresses(self) -> list[Address]:
        """Where the nodes listen: for this machine only, at the ports that follow the balancer's."""
        return [(_LOOPBACK, self.port + number) for number in range(1, self.nodes + 1)]


class ClusterObserver(Protocol):
    """Who is told what happens."""

    def serving(self, nodes: Sequence[NodeProcess]) -> None:
        """Say that all nodes are ready."""

    def lost(self, node: NodeProcess) -> None:
        """Say that a node has ended by itself."""

    def stopping(self) -> None:
        """Say that all of it is about to end."""


async def run(plan: Plan, audience: ClusterObserver) -> None:
    """Serve until a signal ends it; then nothing that was started is left.

    Raises:
        ConfigError: a port is taken, or the data directory cannot be used.
        NodeFailure: a node does not start, no node is left, or the store cannot go on.
    """
    await until_signalled(_serve(plan, audience), audience.stopping)


async def _serve(plan: Plan, audience: ClusterObserver) -> None:
    _check_ports(plan)
    store = await PrivateServer.start(plan.data_dir)
    try:
        async with Balancer(plan.addresses) as balancer, _nodes(plan, store.url) as nodes:
            await _become_ready(nodes, balancer)
            await _open_door(plan, balancer)
            audience.serving(nodes)
            await _go_on(store, nodes, audience)
    finally:
        await store.stop()


@asynccontextmanager
async def _nodes(plan: Plan, store_url: str) -> AsyncIterator[list[NodeProcess]]:
    """Start the nodes; at the end all of them stop, and what they tell their sessions still gets through."""
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


async def _become_ready(nodes: list[NodeProcess], balancer: Balancer) -> None:
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


async def _open_door(plan: Plan, balancer: Balancer) -> None:
    try:
        await balancer.listen(plan.host, plan.port)
    except OSError as error:
        raise NodeFailure(f"cannot listen at {plan.host}:{plan.port}: {error.strerror}") from error


async def _go_on(store: PrivateServer, nodes: list[NodeProcess], audience: ClusterObserver) -> None:
    """Until it cannot go on. Raises: NodeFailure."""
    running = [asyncio.create_task(store.supervise()), asyncio.create_task(_watch(nodes, audience))]
    try:
        done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in running:
            task.cancel()


async def _watch(nodes: list[NodeProcess], audience: ClusterObserver) -> None:
    async def tell(node: NodeProcess) -> None:
        await node.wait()
        audience.lost(node)

    await asyncio.gather(*map(tell, nodes))
    raise NodeFailure("no node is left")


def _check_ports(plan: Plan) -> None:
    """Look before anything is started, so that all that is taken is said at once.

    Raises:
        ConfigError: with the ports that are taken, or why the address cannot be used.
    """
    last = plan.port + plan.nodes
    if not 0 < plan.port <= last <= _HIGHEST_PORT:
        raise ConfigError(f"the ports {plan.port} to {last} do not exist: choose others")
    taken = [port for host, port in [(plan.host, plan.port), *plan.addresses] if not _is_free(host, port)]
    if taken:
        ports = ", ".join(map(str, taken))
        raise ConfigError(
            f"in use by another program: port {ports} of {plan.port} to {last}, which {plan.nodes} nodes need; "
            f"end it, or choose other ports: --bind {plan.host}:{_other(plan)}, or make cluster BIND=…"
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


def _other(plan: Plan) -> int:
    """A port some way up, or down from the top."""
    return plan.port + 100 if plan.port + 100 + plan.nodes <= _HIGHEST_PORT else plan.port - 100
