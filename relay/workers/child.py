"""A worker: a node whose sockets its parent has bound. A program of its own, `python -m relay.workers.child`.

Its standard input is its link to the parent. When the link closes, the parent has ended, for whatever reason, and the
worker ends without a drain, after 15 seconds at the latest.
"""

import asyncio
import pickle
import signal
import socket
import sys

import structlog
import uvloop

from conclave.errors import ConclaveError
from relay.app.config import NodeConfig, RedisUrl
from relay.app.node import Node
from relay.app.run import run_node
from relay.observability import logs
from relay.redis import connect
from relay.workers.families import collect, render
from relay.workers.ipc import PARENT_SECONDS, Assignment, Failed, IpcLink, Listening, Ready, Report

log = structlog.get_logger()

ORPHAN_SECONDS = 15
"""The time that a worker has to end after its parent; then SIGALRM ends it."""


def main() -> int:
    """Return the exit status: 0 after a requested end, 1 after a failure."""
    return uvloop.run(_work(socket.socket(fileno=sys.stdin.fileno())))


async def _work(parent: socket.socket) -> int:
    worker = _Worker(*await asyncio.open_unix_connection(sock=parent))
    try:
        return await worker.run()
    finally:
        await worker.link.close()


class _Worker:
    """The worker's end of the link, and its node."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.link = IpcLink(reader, writer, self._report, response_seconds=PARENT_SECONDS)
        self._node: Node | None = None

    async def run(self) -> int:
        assignment = await self.link.receive()
        if not isinstance(assignment, Assignment):
            return 0  # the parent ended before it sent an assignment
        logs.configure(verbose=assignment.verbose)
        structlog.contextvars.bind_contextvars(worker=assignment.number)
        background: list[asyncio.Task[None]] = []
        try:
            self._node = node = _node(assignment, self.link)
            background += [asyncio.create_task(self._watch_parent(node)), asyncio.create_task(self._announce(node))]
            loop = asyncio.get_running_loop()
            logs.log_uncaught(loop)
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, node.stop)
            await run_node(node)
        except ConclaveError as failure:
            self.link.send(Failed(str(failure)))
            return_code = 1
        else:
            return_code = 0
        finally:
            for task in background:
                task.cancel()
        return return_code

    async def _watch_parent(self, node: Node) -> None:
        while await self.link.receive() is not None:
            node.force_stop()  # the only notification after the assignment is ForceStop
        log.warning("worker.orphaned")
        signal.alarm(ORPHAN_SECONDS)
        node.force_stop()

    async def _announce(self, node: Node) -> None:
        await node.listening.wait()
        self.link.send(Listening())
        await node.ready.wait()
        self.link.send(Ready())

    async def _report(self, metrics: bool) -> Report:
        if self._node is None:
            return Report("starting")
        return Report(self._node.unready_reason, collect(self._node.parts.metrics.registry) if metrics else [])


class _PortStatus:
    """The status of all workers, reported by the parent."""

    def __init__(self, link: IpcLink) -> None:
        self._link = link

    async def why_unready(self) -> str | None:
        report = await self._link.request_report(metrics=False)
        return "the parent process does not answer" if report is None else report.unready

    async def metrics(self) -> bytes | None:
        report = await self._link.request_report(metrics=True)
        return None if report is None else render(report.families)


def _node(assignment: Assignment, link: IpcLink) -> Node:
    config: NodeConfig = pickle.loads(assignment.config)  # noqa: S301 - from the parent
    assert isinstance(config.store, RedisUrl)  # noqa: S101 - the only kind that processes can share
    sockets = [socket.socket(fileno=descriptor) for descriptor in assignment.sockets]
    return Node(
        config,
        *connect.with_replica(config.store.url, config.store.read_url),
        sockets=sockets,
        status=_PortStatus(link),
    )


if __name__ == "__main__":
    sys.exit(main())
