"""`conclave serve`: a relay as a process, with its store and its signals."""

import asyncio
import signal
from typing import TYPE_CHECKING

import msgspec
import uvloop

from conclave.errors import ConfigError
from relay.app.config import DataDir, Ephemeral, NodeConfig, RedisUrl
from relay.app.node import Node
from relay.app.run import logged_failure, run_node, run_relay
from relay.model.errors import NodeFailure
from relay.observability import logs
from relay.redis import connect

if TYPE_CHECKING:
    from relay.store import PrivateServer
    from relay.workers import Supervisor


def run(config: NodeConfig, *, verbose: bool = False) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises:
        ConclaveError: if the relay cannot start or cannot go on.
    """
    logs.configure(verbose=verbose)
    uvloop.run(_serve(config, verbose=verbose))


async def _serve(config: NodeConfig, *, verbose: bool) -> None:
    match config.store:
        case RedisUrl() | Ephemeral():
            await _run(_make_relay(config, config.store, verbose=verbose))
        case DataDir(path):
            from relay.store import PrivateServer  # noqa: PLC0415 - only a data directory needs it

            with logged_failure():
                server = await PrivateServer.start(path)
            try:
                await _run(_make_relay(config, RedisUrl(server.url), verbose=verbose), server)
            finally:
                await server.stop()


def _make_relay(config: NodeConfig, store: RedisUrl | Ephemeral, *, verbose: bool) -> "Node | Supervisor":
    """Return one node, or the parent of several worker processes."""
    with logged_failure():
        if isinstance(store, Ephemeral):
            return Node(config, _in_process())
        if config.workers == 1:
            return Node(config, *connect.with_replica(store.url, store.read_url))
        from relay.workers import Supervisor  # noqa: PLC0415 - only several workers need it

        return Supervisor(msgspec.structs.replace(config, store=store), verbose=verbose)


async def _run(relay: "Node | Supervisor", server: "PrivateServer | None" = None) -> None:
    loop = asyncio.get_running_loop()
    logs.log_uncaught(loop)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, relay.stop)
    supervising = asyncio.create_task(_supervise(server, relay)) if server is not None else None
    try:
        await (run_node(relay) if isinstance(relay, Node) else run_relay(relay))
    finally:
        if supervising is not None:
            supervising.cancel()


async def _supervise(server: "PrivateServer", relay: "Node | Supervisor") -> None:
    """Keep the private server running; the relay fails when that is hopeless."""
    try:
        await server.supervise()
    except NodeFailure as failure:
        relay.fail(failure)


def _in_process() -> connect.Make:
    try:
        return connect.in_process()
    except ImportError:
        raise ConfigError("`--ephemeral` needs fakeredis: pip install 'conclave-cli[standalone]'") from None
