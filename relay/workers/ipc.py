"""The messages between a parent and a worker, over a pair of sockets that closes when either of them ends."""

import asyncio
import itertools
import struct
from collections.abc import Awaitable, Callable
from contextlib import suppress

import msgspec
import structlog

from relay.workers.families import Family

log = structlog.get_logger()

WORKER_SECONDS, PARENT_SECONDS = 1.0, 2.0
"""The deadlines of a report: a worker's own, and the parent's, which asks all workers for theirs."""
_SIZE = struct.Struct("!I")


class Assignment(msgspec.Struct, frozen=True, tag="assignment"):
    """Parent to worker, the first message. `config` is a pickled NodeConfig, `sockets` are inherited descriptors."""

    number: int
    config: bytes
    sockets: list[int]
    verbose: bool


class Listening(msgspec.Struct, frozen=True, tag="listening"):
    """Worker to parent: it accepts connections, so its settings are valid; Redis may still be away."""


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """Worker to parent: it serves sessions for the first time."""


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """Worker to parent, the last message: it ends for a reason that a restart would meet again."""

    text: str


class ForceStop(msgspec.Struct, frozen=True, tag="force_stop"):
    """Parent to worker: end without a drain."""


class ReportRequest(msgspec.Struct, frozen=True, tag="report_request"):
    """A request for a report: a worker reports on itself, the parent on all workers."""

    id: int
    metrics: bool


class Report(msgspec.Struct, frozen=True):
    """The reason why sessions cannot be served, or None; and the metrics, if they were requested."""

    unready: str | None
    families: list[Family] = []


class ReportResponse(msgspec.Struct, frozen=True, tag="report_response"):
    id: int
    report: Report


Notification = Assignment | Listening | Ready | Failed | ForceStop
Message = Notification | ReportRequest | ReportResponse

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Message).decode


class IpcLink:
    """One end of the link. `receive` has to be called continuously: it also handles requests and responses."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        report: Callable[[bool], Awaitable[Report]],
        *,
        response_seconds: float,
    ) -> None:
        """`report` answers the other side's requests; its argument says whether metrics are requested.

        `response_seconds` is the deadline for the other side's responses.
        """
        self.received = 0
        """The number of messages from the other side, late responses included."""
        self._reader = reader
        self._writer = writer
        self._report = report
        self._response_seconds = response_seconds
        self._ids = itertools.count()
        self._pending: dict[int, asyncio.Future[Report]] = {}
        self._answering: set[asyncio.Task[None]] = set()

    def send(self, message: Message) -> None:
        """Send a message. If the other side is gone, the message is lost, and `receive` returns None."""
        if not self._writer.is_closing():
            data = _encode(message)
            self._writer.write(_SIZE.pack(len(data)) + data)

    async def receive(self) -> Notification | None:
        """Return the next notification; None when the other side is gone."""
        while (message := await self._read()) is not None:
            match message:
                case ReportRequest():
                    task = asyncio.create_task(self._answer(message))
                    self._answering.add(task)
                    task.add_done_callback(self._answering.discard)
                case ReportResponse(number, report):
                    if (pending := self._pending.get(number)) is not None and not pending.done():
                        pending.set_result(report)
                case _:
                    return message
        return None

    async def request_report(self, *, metrics: bool) -> Report | None:
        """Return the other side's report; None if there is no response in time."""
        request = ReportRequest(next(self._ids), metrics)
        pending: asyncio.Future[Report]
        pending = self._pending[request.id] = asyncio.get_running_loop().create_future()
        self.send(request)
        try:
            async with asyncio.timeout(self._response_seconds):
                return await pending
        except TimeoutError:
            return None
        finally:
            del self._pending[request.id]

    def probe(self) -> None:
        """Request a report without waiting for it; `received` counts the response."""
        self.send(ReportRequest(next(self._ids), metrics=False))

    async def close(self) -> None:
        """Send what is buffered, and close the link."""
        for task in self._answering:
            task.cancel()
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(self._response_seconds):
                await self._writer.drain()
        self._writer.close()

    async def _answer(self, request: ReportRequest) -> None:
        try:
            report = await self._report(request.metrics)
        except Exception:
            log.exception("worker.report_failed")  # the other side gets no response in time
        else:
            self.send(ReportResponse(request.id, report))

    async def _read(self) -> Message | None:
        try:
            (size,) = _SIZE.unpack(await self._reader.readexactly(_SIZE.size))
            message: Message = _decode(await self._reader.readexactly(size))
            self.received += 1
            return message
        except (asyncio.IncompleteReadError, OSError):
            return None
