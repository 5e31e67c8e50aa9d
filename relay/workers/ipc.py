"""What a parent and a worker say to each other, over a pair of sockets that ends with either of them."""

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
"""How long a worker, or the parent, which asks the workers, may take to answer. Beyond that it does not answer."""
_SIZE = struct.Struct("!I")


class Assignment(msgspec.Struct, frozen=True, tag="assignment"):
    """Parent to worker, first of all. `config` is a pickled NodeConfig, `sockets` are inherited descriptors."""

    number: int
    config: bytes
    sockets: list[int]
    verbose: bool


class Listening(msgspec.Struct, frozen=True, tag="listening"):
    """Worker to parent: it takes connections, so its settings are good; Redis may still be away."""


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """Worker to parent: it serves sessions, for the first time in its life."""


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """Worker to parent, last of all: it ends for a reason that a further start would meet again."""

    text: str


class Hurry(msgspec.Struct, frozen=True, tag="hurry"):
    """Parent to worker: end, and do not drain."""


class Question(msgspec.Struct, frozen=True, tag="question"):
    """How are you? To a worker: itself; to the parent: all of them."""

    id: int
    metrics: bool


class Report(msgspec.Struct, frozen=True, tag="report"):
    """The answer: why sessions cannot be served, or None; and the metrics, if they were asked for."""

    unready: str | None
    families: list[Family] = []


class Answer(msgspec.Struct, frozen=True, tag="answer"):
    id: int
    report: Report


Note = Assignment | Listening | Ready | Failed | Hurry
Message = Note | Question | Answer

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Message).decode


class IpcLink:
    """One end. `receive` has to be called over and over: it is what carries answers, too."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        report: Callable[[bool], Awaitable[Report]],
        *,
        patience: float,
    ) -> None:
        """`report` answers the other side's questions; it is given whether metrics are wanted.

        `patience` bounds how long this side waits for an answer, in seconds.
        """
        self.heard = 0
        """How many messages have come from the other side, also answers that came too late."""
        self._reader = reader
        self._writer = writer
        self._report = report
        self._patience = patience
        self._ids = itertools.count()
        self._waiting: dict[int, asyncio.Future[Report]] = {}
        self._answering: set[asyncio.Task[None]] = set()

    def send(self, message: Message) -> None:
        """Send a message; if the other side is gone, `receive` says so."""
        if not self._writer.is_closing():
            data = _encode(message)
            self._writer.write(_SIZE.pack(len(data)) + data)

    async def receive(self) -> Note | None:
        """Return the next note; None when the other side is gone."""
        while (message := await self._read()) is not None:
            match message:
                case Question():
                    task = asyncio.create_task(self._answer(message))
                    self._answering.add(task)
                    task.add_done_callback(self._answering.discard)
                case Answer(number, report):
                    if (waiting := self._waiting.get(number)) is not None and not waiting.done():
                        waiting.set_result(report)
                case _:
                    return message
        return None

    async def ask(self, *, metrics: bool) -> Report | None:
        """Ask the other side how it is; None if it does not say so in time."""
        question = Question(next(self._ids), metrics)
        waiting: asyncio.Future[Report]
        waiting = self._waiting[question.id] = asyncio.get_running_loop().create_future()
        self.send(question)
        try:
            async with asyncio.timeout(self._patience):
                return await waiting
        except TimeoutError:
            return None
        finally:
            del self._waiting[question.id]

    def probe(self) -> None:
        """Ask the other side without waiting for it: whenever it answers, `heard` counts that."""
        self.send(Question(next(self._ids), metrics=False))

    async def close(self) -> None:
        """Send what is to be sent and hang up."""
        for task in self._answering:
            task.cancel()
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(self._patience):
                await self._writer.drain()
        self._writer.close()

    async def _answer(self, question: Question) -> None:
        try:
            report = await self._report(question.metrics)
        except Exception:
            log.exception("worker.report_failed")  # whoever asked finds that there is no answer
        else:
            self.send(Answer(question.id, report))

    async def _read(self) -> Message | None:
        try:
            (size,) = _SIZE.unpack(await self._reader.readexactly(_SIZE.size))
            message: Message = _decode(await self._reader.readexactly(size))
            self.heard += 1
            return message
        except (asyncio.IncompleteReadError, OSError):
            return None
