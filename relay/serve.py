"""Running a node as a process: its store, its signals, its end."""

import asyncio
import signal
import sys
from typing import TYPE_CHECKING

import structlog

from conclave.errors import ConclaveError, ConfigError
from relay import logs, telemetry
from relay.config import DataDir, Ephemeral, NodeConfig, RedisUrl
from relay.errors import NodeFailure
from relay.node import Node
from relay.redis import connect

if TYPE_CHECKING:
    from relay.store import PrivateServer

log = structlog.get_logger()


def run(config: NodeConfig, *, verbose: bool = False) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises:
        ConclaveError: if the node cannot start or cannot go on.
    """
    logs.configure(verbose=verbose)
    if sys.platform == "win32":
        asyncio.run(_serve(config))
    else:
        import uvloop  # noqa: PLC0415 - does not exist on Windows

        uvloop.run(_serve(config))


async def _serve(config: NodeConfig) -> None:
    match config.store:
        case RedisUrl(url, read_url):
            await _run_node(config, connect.real(url), near=None if read_url is None else connect.real(read_url))
        case Ephemeral():
            await _run_node(config, _in_process())
        case DataDir(path):
            from relay.store import PrivateServer  # noqa: PLC0415 - needs what Windows does not have

            server = await PrivateServer.start(path)
            try:
                await _run_node(config, connect.real(server.url), server)
            finally:
                await server.stop()


async def _run_node(
    config: NodeConfig, make: connect.Make, server: "PrivateServer | None" = None, near: connect.Make | None = None
) -> None:
    node = Node(config, make, near)
    loop = asyncio.get_running_loop()
    logs.report_strays(loop)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, node.stop)
    watching = asyncio.create_task(_watch(server, node)) if server is not None else None
    try:
        async with telemetry.exporting(node.name):
            await _to_its_end(node)
    finally:
        if watching is not None:
            watching.cancel()


async def _to_its_end(node: Node) -> None:
    """Run a node. What is unexpected is described in the log; a trace as Python shows it would quote values."""
    try:
        await node.run()
    except ConclaveError:
        raise
    except Exception as error:
        log.exception("node.failed")
        raise _ours(error) or NodeFailure("the node failed; its log says where") from None


async def _watch(server: "PrivateServer", node: Node) -> None:
    """Keep the private server running; when that is hopeless, the node ends."""
    try:
        await server.supervise()
    except NodeFailure as failure:
        node.fail(failure)


def _in_process() -> connect.Make:
    try:
        return connect.in_process()
    except ImportError:
        raise ConfigError("`--ephemeral` needs fakeredis: pip install 'conclave-cli[standalone]'") from None


def _ours(error: BaseException) -> ConclaveError | None:
    """Return the first failure in a group that is fit to be shown."""
    if isinstance(error, BaseExceptionGroup):
        return next((ours for each in error.exceptions if (ours := _ours(each)) is not None), None)
    return error if isinstance(error, ConclaveError) else None
