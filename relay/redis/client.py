"""The way to Redis: commands of one moment share a pipeline, an outage is noticed once and answered at once.

Every command goes through `call` or `run`. What arrives while the event loop turns once, or while all lanes are busy,
travels in one pipeline: with redis-py that costs a sixth of the commands one by one (docs/decisions/0002).

After a connection error or a time-out the client is *down*: calls fail immediately with `StoreUnavailable`, which says
what the last attempt met, while a probe looks for Redis every 100 ms. When it answers, the client is up again and
`on_up` callbacks run.
"""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import structlog
from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import InvalidResponse, NoScriptError, RedisError, ResponseError

from relay.model.errors import StoreUnavailable
from relay.observability.metrics import Metrics
from relay.redis.scripts import Script

log = structlog.get_logger()

Command = tuple[bytes | str | int | float, ...]
BROKEN = (RedisError, OSError, TimeoutError, RuntimeError)
"""What a connection that broke raises; RuntimeError is uvloop's, for a write to a socket that was reset meanwhile."""

Reply = Any
"""What Redis answered: bytes, int, None, or a list of these."""

_LANES = 4
_PIPELINE_COMMANDS = 256
_PIPELINE_BYTES = 4 * 1024 * 1024
_WAITING_COMMANDS = 50_000
_WAITING_BYTES = 64 * 1024 * 1024
_PROBE_SECONDS = 0.1
_ENDING = "the node is shutting down"


class _Call:
    __slots__ = ("asked", "command", "reply", "script", "size")

    def __init__(self, command: Command, script: Script | None, reply: asyncio.Future[Reply]) -> None:
        self.asked = time.monotonic()
        self.command = command
        self.script = script
        self.reply = reply
        self.size = sum(len(part) if isinstance(part, bytes | str) else 8 for part in command)


class RedisClient:
    """A multiplexed, pipelining client of one Redis.

    Calls made one after the other by one task are executed in that order; calls of different tasks in any order.
    A call that failed with `StoreUnavailable` may still have been executed: nothing is sent twice.
    """

    def __init__(
        self, make: Callable[..., "Redis"], *, timeout: float, metrics: Metrics, server: str = "primary"
    ) -> None:
        """`make(**options)` builds a redis-py client; `timeout` bounds every call, in seconds.

        `server` is what logs call the other end.
        """
        self._server = server
        self._redis = make(socket_timeout=timeout, socket_connect_timeout=timeout)
        self._patient = make(socket_timeout=None, socket_connect_timeout=timeout)
        self._timeout = timeout
        self._metrics = metrics
        self._waiting: deque[_Call] = deque()
        self._waiting_bytes = 0
        self._work = asyncio.Event()
        self._down_since: float | None = None
        self._down_why = ""
        self._ended = False
        self._down = asyncio.Event()
        self._on_up: list[Callable[[], Awaitable[None]]] = []

    @property
    def is_up(self) -> bool:
        return self._down_since is None

    def on_up(self, callback: Callable[[], Awaitable[None]]) -> None:
        """Have `callback` awaited, in the order of registration, each time Redis is back after an outage."""
        self._on_up.append(callback)

    async def connect(self) -> None:
        """Reach Redis once. Raises: StoreUnavailable."""
        try:
            async with asyncio.timeout(self._timeout):
                await self._redis.ping()
        except BROKEN as error:
            raise StoreUnavailable(_describe(error)) from error

    def call(self, *command: bytes | str | float) -> asyncio.Future[Reply]:
        """Send one command; the future holds Redis' reply. Raises, in the future: StoreUnavailable."""
        return self._submit(command, None)

    def run(self, script: Script, keys: Sequence[str], *args: bytes | str | float) -> asyncio.Future[Reply]:
        """Run one script atomically; the future holds its result. Raises, in the future: StoreUnavailable."""
        return self._submit((len(keys), *keys, *args), script)

    def _submit(self, command: Command, script: Script | None) -> asyncio.Future[Reply]:
        reply: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        if self._ended:
            reply.set_exception(StoreUnavailable(_ENDING))
        elif self._down_since is not None:
            reply.set_exception(StoreUnavailable(self._down_why))
        elif len(self._waiting) >= _WAITING_COMMANDS or self._waiting_bytes >= _WAITING_BYTES:
            reply.set_exception(StoreUnavailable("too many commands are waiting"))
        else:
            call = _Call(command, script, reply)
            self._waiting.append(call)
            self._waiting_bytes += call.size
            self._work.set()
        return reply

    async def connection(self) -> AbstractConnection:
        """Open a connection of the caller's own, without a read time-out. Raises: StoreUnavailable."""
        connection: AbstractConnection = self._patient.connection_pool.make_connection()  # type: ignore[no-untyped-call]
        try:
            async with asyncio.timeout(self._timeout):
                await connection.connect()  # type: ignore[no-untyped-call]
        except BROKEN as error:
            raise StoreUnavailable(_describe(error)) from error
        return connection

    def count_error(self) -> None:
        """Count something that went wrong with Redis."""
        self._metrics.redis_errors.inc()

    def count_reconnect(self) -> None:
        """Count a connection that was made anew."""
        self._metrics.redis_reconnects.inc()

    async def serve(self) -> None:
        """Carry commands until cancelled; then whatever still waits fails, and whatever else is asked."""
        try:
            async with asyncio.TaskGroup() as tasks:
                for _ in range(_LANES):
                    tasks.create_task(self._lane())
                tasks.create_task(self._watch())
        finally:
            self._ended = True
            self._fail_waiting(StoreUnavailable(_ENDING))
            await self._redis.aclose()
            await self._patient.aclose()

    async def _lane(self) -> None:
        while not _is_cancelled():
            await self._work.wait()
            if batch := self._take():
                await self._execute(batch)

    def _take(self) -> list[_Call]:
        batch: list[_Call] = []
        size = 0
        while self._waiting and len(batch) < _PIPELINE_COMMANDS and size < _PIPELINE_BYTES:
            call = self._waiting.popleft()
            self._waiting_bytes -= call.size
            if not call.reply.done():  # a caller that gave up takes its command along
                batch.append(call)
                size += call.size
        if not self._waiting:
            self._work.clear()
        return batch

    async def _execute(self, batch: list[_Call]) -> None:
        try:
            replies = await self._pipeline(batch)
            unknown = [i for i, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
            if unknown:  # Redis restarted, or has not met the script yet: it was not run
                await self._load({script for i in unknown if (script := batch[i].script)})
                for i, reply in zip(unknown, await self._pipeline([batch[i] for i in unknown]), strict=True):
                    replies[i] = reply
        except BROKEN as error:
            self.count_error()
            self._mark_down(error)
            _fail(batch, StoreUnavailable(_describe(error)))
        except BaseException:
            _fail(batch, StoreUnavailable(_ENDING))
            raise
        else:
            for call, reply in zip(batch, replies, strict=True):
                self._settle(call, reply)

    async def _pipeline(self, batch: list[_Call]) -> list[Reply]:
        async with asyncio.timeout(self._timeout):
            pipeline = self._redis.pipeline(transaction=False)
            for call in batch:
                if call.script is None:
                    pipeline.execute_command(*call.command)
                else:
                    pipeline.execute_command("EVALSHA", call.script.sha, *call.command)
            return await pipeline.execute(raise_on_error=False)

    async def _load(self, scripts: set[Script]) -> None:
        async with asyncio.timeout(self._timeout):
            for script in scripts:
                await self._redis.script_load(script.text)

    def _settle(self, call: _Call, reply: Reply) -> None:
        if call.reply.done():
            return
        if not isinstance(reply, Exception):
            if call.script is not None:
                took = time.monotonic() - call.asked
                self._metrics.script_seconds.labels(script=call.script.name).observe(took)
            call.reply.set_result(reply)
            return
        self.count_error()
        if isinstance(reply, ResponseError) and not _passing(reply):
            # A script or a command of ours is wrong: a defect, not an outage.
            log.error("redis.error", server=self._server, command=_name(call), error=_said(reply))
            call.reply.set_exception(StoreUnavailable(_said(reply)))
        else:
            log.warning("redis.refused", server=self._server, command=_name(call), error=_said(reply))
            call.reply.set_exception(StoreUnavailable(_said(reply)))

    def _mark_down(self, error: BaseException) -> None:
        self._down_why = error.why if isinstance(error, StoreUnavailable) else _describe(error)
        if self._down_since is None:
            self._down_since = asyncio.get_running_loop().time()
            log.error("redis.down", server=self._server, error=self._down_why)
            self._down.set()
        self._fail_waiting(StoreUnavailable(self._down_why))

    def _fail_waiting(self, error: StoreUnavailable) -> None:
        waiting, self._waiting, self._waiting_bytes = self._waiting, deque(), 0
        self._work.clear()
        _fail(waiting, error)

    async def _watch(self) -> None:
        while not _is_cancelled():
            await self._down.wait()
            try:
                await self.connect()
            except StoreUnavailable as error:
                self._down_why = error.why
                await asyncio.sleep(_PROBE_SECONDS)
                continue
            if _is_cancelled():
                return
            since, self._down_since = self._down_since, None
            self._down.clear()
            self.count_reconnect()
            away = asyncio.get_running_loop().time() - (since or 0.0)
            log.info("redis.up", server=self._server, away_seconds=round(away, 3))
            for callback in self._on_up:
                try:
                    await callback()
                except StoreUnavailable as error:
                    self._mark_down(error)
                    break


def _is_cancelled() -> bool:
    """Whether the present task has been cancelled, also if that was lost on its way.

    redis-py writes within `asyncio.wait_for`, and in Python 3.11 that returns instead of being cancelled if the write
    was done in the same turn of the event loop.
    """
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _fail(calls: Sequence[_Call] | deque[_Call], error: StoreUnavailable) -> None:
    for call in calls:
        if not call.reply.done():
            call.reply.set_exception(error)


def _name(call: _Call) -> str:
    return call.script.name if call.script is not None else str(call.command[0])


def _passing(error: ResponseError) -> bool:
    """Whether Redis says that it cannot now, rather than that the command is wrong."""
    return str(error).startswith(("LOADING", "BUSY", "READONLY", "MASTERDOWN", "OOM", "CLUSTERDOWN", "TRYAGAIN"))


def _said(error: BaseException) -> str:
    """Return what Redis said, without the arguments that it quotes of a command that it does not know."""
    return str(error).partition(", with args")[0]


def _describe(error: BaseException) -> str:
    if isinstance(error, InvalidResponse):  # it quotes what cannot be read
        return type(error).__name__
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
