"""Running a node as a process: its store, its signals, its end."""

import asyncio
import signal
import sys
from typing import TYPE_CHECKING

import msgspec

from conclave.errors import ConfigError
from relay.app.config import DataDir, Ephemeral, NodeConfig, RedisUrl
from relay.app.node import Node
from relay.app.run import explained, exported, to_its_end
from relay.model.errors import NodeFailure
from relay.observability import logs
from relay.redis import connect

if TYPE_CHECKING:
    from relay.store import PrivateServer
    from relay.workers import Supervisor


def run(config: NodeConfig, *, verbose: bool = False) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises:
        ConclaveError: if the node cannot start or cannot go on.
    """
    logs.configure(verbose=verbose)
    if sys.platform == "win32":
        asyncio.run(_serve(config, verbose=verbose))
    else:
        import uvloop  # noqa: PLC0415 - does not exist on Windows

        uvloop.run(_serve(config, verbose=verbose))


async def _serve(config: NodeConfig, *, verbose: bool) -> None:
    match config.store:
        case RedisUrl() | Ephemeral():
            await _run(_relay(config, config.store, verbose=verbose))
        case DataDir(path):
            from relay.store import PrivateServer  # noqa: PLC0415 - needs what Windows does not have

            with explained():
                server = await PrivateServer.start(path)
            try:
                await _run(_relay(config, RedisUrl(server.url), verbose=verbose), server)
            finally:
                await server.stop()


def _relay(config: NodeConfig, store: RedisUrl | Ephemeral, *, verbose: bool) -> "Node | Supervisor":
    """Return one node, or the parent of several processes that are one each."""
    with explained():
        if isinstance(store, Ephemeral):
            return Node(config, _in_process())
        if config.workers == 1:
            return Node(config, *connect.with_replica(store.url, store.read_url))
        from relay.workers import Supervisor  # noqa: PLC0415 - needs what Windows does not have

        return Supervisor(msgspec.structs.replace(config, store=store), verbose=verbose)


async def _run(relay: "Node | Supervisor", server: "PrivateServer | None" = None) -> None:
    loop = asyncio.get_running_loop()
    logs.report_strays(loop)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, relay.stop)
    watching = asyncio.create_task(_watch(server, relay)) if server is not None else None
    try:
        await (exported(relay) if isinstance(relay, Node) else to_its_end(relay))
    finally:
        if watching is not None:
            watching.cancel()


async def _watch(server: "PrivateServer", relay: "Node | Supervisor") -> None:
    """Keep the private server running; when that is hopeless, the relay ends."""
    try:
        await server.supervise()
    except NodeFailure as failure:
        relay.fail(failure)


def _in_process() -> connect.Make:
    try:
        return connect.in_process()
    except ImportError:
        raise ConfigError("`--ephemeral` needs fakeredis: pip install 'conclave-cli[standalone]'") from None
