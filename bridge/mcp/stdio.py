"""The bridge as a process: MCP on stdin and stdout, until one of them ends or a signal comes.

Bounds: a line of input (16 MiB), the replies that the client does not read (reading waits), the open calls (further
ones are refused, other messages and the end of stdin are still handled), the events (see `outgoing.py`), and the time
of the shutdown.
"""

import asyncio
import logging
import os
import signal
import sys
import threading
from collections.abc import Awaitable, Callable
from contextlib import redirect_stdout, suppress
from functools import partial
from typing import Final

from bridge.mcp.jsonrpc import Lines, Message
from bridge.mcp.outgoing import Outgoing
from bridge.mcp.protocol import Endpoint, Outlet, Start, Stop, ToolCall, ToolResult, Tools
from bridge.mcp.streams import BlockingThread, read, take_stdio, write
from conclave.errors import ConclaveError

BATCH_BYTES: Final = 64 * 1024
"""The size up to which lines are collected for one write."""

PIECE_BYTES: Final = 4096
"""The size of one system call: small enough to tell a slow reader from one that does not read."""

REPLY_BYTES: Final = 1024 * 1024
"""The size of waiting replies beyond which the client's next message is not handled yet."""

CALLS: Final = 256
"""The greatest number of open calls."""

GREETING_SECONDS: Final = 1.0
"""The time after which `on_ready` is started, if the client does not begin."""

GRACE_SECONDS: Final = 0.4
"""The time that running calls have after the end of stdin."""

STALL_SECONDS: Final = 0.25
"""The time without progress after which the shutdown does not wait for the client any more."""

END_SECONDS: Final = 0.9
LAST_SECONDS: Final = 0.1
"""The time of the whole shutdown, and of its rest if a slow client took longer."""

CANCELLED: Final = ToolResult("cancelled: the bridge is shutting down", is_error=True)
TOO_MANY: Final = ToolResult(f"{CALLS} calls are open; wait until some of them are answered", is_error=True)
FAILED: Final = ToolResult("internal error", is_error=True)

logger = logging.getLogger(__name__)


def run(
    tools_factory: Callable[[Outlet], Tools], *, instructions: str, on_ready: Callable[[], Awaitable[object]]
) -> int:
    """Serve stdin and stdout as `serve` does, and return the exit code. For the main thread of a process of its own.

    Other code cannot reach the process' stdin and stdout any more: its output, also that of child processes, goes to
    stderr. After the last line the process has to end, and is ended by force if a part of it does not.

    Raises:
        ConclaveError: if stdin or stdout is closed.
    """
    source, sink = take_stdio()
    with redirect_stdout(sys.stderr):
        return asyncio.run(
            serve(
                tools_factory,
                instructions=instructions,
                on_ready=on_ready,
                source=source,
                sink=sink,
                on_end=_end_the_process,
            )
        )


async def serve(
    tools_factory: Callable[[Outlet], Tools],
    *,
    instructions: str,
    on_ready: Callable[[], Awaitable[object]],
    source: int,
    sink: int,
    on_end: Callable[[int, float], None] = lambda _code, _seconds: None,
) -> int:
    """Speak MCP on two descriptors until `source` ends, SIGTERM or SIGINT; return the exit code.

    `tools_factory` is called first, with the outlet to the client. `on_ready` is started after the answer to the first
    `initialize`, or after a second without one, and may run until it is cancelled at the end; an exception is logged,
    and the exit code is 1. `on_end` gets the exit code, and the seconds that are left for cleanup, when all lines are
    written.
    """
    return await _Stdio(tools_factory, instructions, on_ready, source, sink).run(on_end)


class _Stdio:
    """One run of `serve`."""

    def __init__(
        self,
        tools_factory: Callable[[Outlet], Tools],
        instructions: str,
        on_ready: Callable[[], Awaitable[object]],
        source: int,
        sink: int,
    ) -> None:
        self._outgoing = Outgoing()
        self._due = asyncio.Event()  # there may be lines to write
        self._moved = asyncio.Event()  # lines were written, or a call ended
        self._greeted = asyncio.Event()
        self._ending = asyncio.Event()
        self._tools = tools_factory(Outlet(self._outgoing, self._due.set))
        self._endpoint = Endpoint(self._tools.listed, self._outgoing, instructions)
        self._on_ready = on_ready
        self._source = source
        self._sink = sink
        self._calls: dict[ToolCall, asyncio.Task[ToolResult]] = {}
        self._writing = False
        self._broken = False
        self._written = 0
        self._signalled = False
        self._end_at = 0.0
        self._code = 0

    async def run(self, on_end: Callable[[int, float], None]) -> int:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._signal)
        try:
            async with asyncio.TaskGroup() as group:
                writing = group.create_task(self._write())
                reading = group.create_task(self._read(group))
                ready = group.create_task(self._get_ready())
                await self._ending.wait()
                reading.cancel()
                ready.cancel()
                self._cancel_calls()
                await self._drain()
                writing.cancel()
                on_end(self._code, max(LAST_SECONDS, self._end_at - loop.time()))
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)
        return self._code

    def _signal(self) -> None:
        self._signalled = True
        self._end(0)

    def _end(self, code: int) -> None:
        """Begin the shutdown; the exit code is the greatest one of all calls."""
        self._code = max(self._code, code)
        self._set_end()
        self._ending.set()

    def _set_end(self) -> None:
        self._end_at = self._end_at or asyncio.get_running_loop().time() + END_SECONDS

    async def _get_ready(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(GREETING_SECONDS):
                await self._greeted.wait()
        try:
            await self._on_ready()
        except ConclaveError as error:
            logger.error("%s", error)  # noqa: TRY400 - its text says all that there is to say
            self._end(1)
        except Exception:
            logger.exception("the bridge cannot go on")
            self._end(1)

    async def _read(self, group: asyncio.TaskGroup) -> None:
        lines = Lines()
        worker = BlockingThread("stdin")
        try:
            while chunk := await worker.call(partial(read, self._source)):
                for message in lines.feed(chunk):
                    await self._room()
                    self._receive(message, group)
            for message in lines.end():
                self._receive(message, group)
        except ConnectionResetError:
            pass  # the other end of a socket is gone, with unread lines
        except OSError as error:
            logger.error("cannot read from the client: %s", error.strerror)  # noqa: TRY400 - the reason is in the text
            self._code = 1
        finally:
            worker.close()
        self._set_end()
        if self._calls:
            await asyncio.wait(self._calls.values(), timeout=GRACE_SECONDS)
        self._end(0)

    async def _room(self) -> None:
        while self._outgoing.reply_bytes > REPLY_BYTES:
            self._moved.clear()
            await self._moved.wait()
        if len(self._calls) >= CALLS:  # a call that waits for nothing ends in one turn, and is removed in the next
            await asyncio.sleep(0)
            await asyncio.sleep(0)

    def _receive(self, message: Message, group: asyncio.TaskGroup) -> None:
        match self._endpoint.receive(message):
            case Start(call) if len(self._calls) >= CALLS:
                self._endpoint.finish(call, TOO_MANY)
            case Start(call):
                self._calls[call] = task = group.create_task(self._call(call))
                task.add_done_callback(partial(self._called, call))
            case Stop(call):
                self._calls[call].cancel()
        self._due.set()

    async def _call(self, call: ToolCall) -> ToolResult:
        try:
            return await self._tools.call(call.name, call.arguments)
        except Exception:
            logger.exception("tool %r failed", call.name)
            return FAILED

    def _called(self, call: ToolCall, task: asyncio.Task[ToolResult]) -> None:
        """Answer the call. Its task cannot do it: one that is cancelled before its first step never runs."""
        del self._calls[call]
        self._endpoint.finish(call, CANCELLED if task.cancelled() else task.result())
        self._due.set()
        self._moved.set()

    def _cancel_calls(self) -> None:
        """Answer the open calls, without waiting for their cleanup."""
        for call, task in self._calls.items():
            self._endpoint.finish(call, CANCELLED)
            task.cancel()
        self._due.set()

    async def _write(self) -> None:
        worker = BlockingThread("stdout")
        try:
            while True:
                batch = self._outgoing.take(BATCH_BYTES)
                if not batch:
                    self._due.clear()
                    await self._due.wait()
                    continue
                self._writing = True
                await worker.call(partial(self._write_pieces, batch))
                self._writing = False
                self._moved.set()
                if self._endpoint.greeted and not self._outgoing.reply_bytes:
                    self._greeted.set()
        except (BrokenPipeError, ConnectionResetError):
            self._broken = True
            self._end(0)
        except OSError as error:
            logger.error("cannot write to the client: %s", error.strerror)  # noqa: TRY400 - the reason is in the text
            self._broken = True
            self._end(1)
        finally:
            worker.close()

    def _write_pieces(self, batch: bytes) -> None:
        rest = memoryview(batch)
        while rest:
            written = write(self._sink, rest[:PIECE_BYTES])
            self._written += written
            rest = rest[written:]

    async def _drain(self) -> None:
        """Write the waiting lines as long as the client reads; after a signal, for one `STALL_SECONDS` at most."""
        while not self._drained():
            written, signalled = self._written, self._signalled
            with suppress(TimeoutError):
                async with asyncio.timeout(STALL_SECONDS):
                    while not self._drained():
                        self._moved.clear()
                        await self._moved.wait()
            if signalled or written == self._written:
                return

    def _drained(self) -> bool:
        return self._broken or not (self._writing or self._outgoing.due())


def _end_the_process(code: int, seconds: float) -> None:
    """End the process after this time, even if a task suppresses its cancellation or a thread does not return."""
    timer = threading.Timer(seconds, os._exit, (code,))
    timer.daemon = True
    timer.start()
