"""A pipelining Redis client: the commands of one moment share a pipeline, and an outage fails all of them immediately.

Every command goes through `call` or `run`. The commands of one turn of the event loop, and those that arrive while all
lanes are busy, travel in one pipeline: with redis-py that costs a sixth of the commands one by one
(docs/decisions/0002).

After a connection error or a time-out the client is *down*: calls fail immediately with `StoreUnavailable`, which
carries the error of the last attempt, while the client pings Redis every 100 ms. At the first reply the client is up
again and the `on_up` callbacks run.
"""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

import structlog
from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import NoScriptError, ResponseError

from relay.model.errors import StoreUnavailable
from relay.observability.metrics import Metrics
from relay.redis import scripts
from relay.redis.failures import CONNECTION_ERRORS, RECONNECT_SECONDS, describe, is_transient, reply_text
from relay.redis.scripts import Script

log = structlog.get_logger()

Command = tuple[bytes | str | int | float, ...]
Reply = Any
"""A reply of Redis: bytes, int, None, or a list of these."""

_LANES = 1
_PIPELINE_COMMANDS = 256
_PIPELINE_BYTES = 4 * 1024 * 1024
_WAITING_COMMANDS = 50_000
_WAITING_BYTES = 64 * 1024 * 1024
_ENDING = "the node is shutting down"


class _Request:
    __slots__ = ("asked", "command", "reply", "script", "size")

    def __init__(self, command: Command, script: Script | None, reply: asyncio.Future[Reply]) -> None:
        self.asked = time.monotonic()
        self.command = command
        self.script = script
        self.reply = reply
        self.size = sum(len(part) if isinstance(part, bytes | str) else 8 for part in command)

    @property
    def name(self) -> str:
        """The name of the script or of the command."""
        return self.script.name if self.script is not None else str(self.command[0])


class RedisClient:
    """A multiplexed, pipelining client of one Redis.

    The calls that a task awaits one after the other are executed in that order; concurrent calls in any order. A call
    that failed with `StoreUnavailable` may have been executed. No command is sent twice.
    """

    def __init__(
        self, make: Callable[..., "Redis"], *, timeout: float, metrics: Metrics, server: str = "primary"
    ) -> None:
        """`make(**options)` builds a redis-py client; `timeout` bounds every call, in seconds.

        `server` names the server in the logs.
        """
        self._server = server
        self._redis = make(socket_timeout=timeout, socket_connect_timeout=timeout)
        self._patient = make(socket_timeout=None, socket_connect_timeout=timeout)
        self._timeout = timeout
        self._metrics = metrics
        self._script_seconds = {name: metrics.script_seconds.labels(script=name) for name in scripts.NAMES}
        self._waiting: deque[_Request] = deque()
        self._waiting_bytes = 0
        self._idle_lanes: list[asyncio.Future[None]] = []
        self._waking = False
        """Whether a lane was woken that has not taken its batch yet: it takes what is called for until then."""
        self._down_since: float | None = None
        self._down_why = ""
        self._ended = False
        self._down = asyncio.Event()
        self._on_up: list[Callable[[], Awaitable[None]]] = []

    @property
    def is_up(self) -> bool:
        return self._down_since is None

    def on_up(self, callback: Callable[[], Awaitable[None]]) -> None:
        """Have `callback` awaited, in the order of registration, after each outage of Redis."""
        self._on_up.append(callback)

    async def connect(self) -> None:
        """Ping Redis. Raises: StoreUnavailable."""
        try:
            async with asyncio.timeout(self._timeout):
                await self._redis.ping()
        except CONNECTION_ERRORS as error:
            raise StoreUnavailable(describe(error)) from error

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
            request = _Request(command, script, reply)
            self._waiting.append(request)
            self._waiting_bytes += request.size
            self._wake_lane()
        return reply

    async def connection(self) -> AbstractConnection:
        """Open a connection of the caller's own, without a read time-out. Raises: StoreUnavailable."""
        connection: AbstractConnection = self._patient.connection_pool.make_connection()  # type: ignore[no-untyped-call]
        try:
            async with asyncio.timeout(self._timeout):
                await connection.connect()  # type: ignore[no-untyped-call]
        except CONNECTION_ERRORS as error:
            raise StoreUnavailable(describe(error)) from error
        return connection

    def count_error(self) -> None:
        """Count an error of Redis or of a connection to it."""
        self._metrics.redis_errors.inc()

    def count_reconnect(self) -> None:
        """Count a connection that was made again."""
        self._metrics.redis_reconnects.inc()

    async def serve(self) -> None:
        """Carry commands until cancelled. Commands that wait then fail, and so does every later call."""
        try:
            async with asyncio.TaskGroup() as tasks:
                for _ in range(_LANES):
                    tasks.create_task(self._lane())
                tasks.create_task(self._reconnect())
        finally:
            self._ended = True
            self._fail_waiting(StoreUnavailable(_ENDING))
            await self._redis.aclose()
            await self._patient.aclose()

    def _wake_lane(self) -> None:
        """Wake one idle lane for the commands that wait, unless one is on its way."""
        while self._idle_lanes and not self._waking:
            lane = self._idle_lanes.pop()
            if not lane.done():  # a lane that is being cancelled takes nothing
                self._waking = True
                lane.set_result(None)

    async def _lane(self) -> None:
        while not _is_cancelled():
            if not self._waiting or self._waking:
                idle = asyncio.get_running_loop().create_future()
                self._idle_lanes.append(idle)
                await idle
                self._waking = False
            if batch := self._take():
                await self._execute(batch)

    def _take(self) -> list[_Request]:
        batch: list[_Request] = []
        size = 0
        while self._waiting and len(batch) < _PIPELINE_COMMANDS and size < _PIPELINE_BYTES:
            request = self._waiting.popleft()
            self._waiting_bytes -= request.size
            if not request.reply.done():  # its caller has given up
                batch.append(request)
                size += request.size
        if self._waiting:
            self._wake_lane()
        return batch

    async def _execute(self, batch: list[_Request]) -> None:
        try:
            replies = await self._pipeline(batch)
            unknown = [i for i, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
            if unknown:  # Redis restarted, or has not met the script yet: it was not run
                await self._load({script for i in unknown if (script := batch[i].script)})
                for i, reply in zip(unknown, await self._pipeline([batch[i] for i in unknown]), strict=True):
                    replies[i] = reply
        except CONNECTION_ERRORS as error:
            self.count_error()
            self._mark_down(error)
            _fail(batch, StoreUnavailable(describe(error)))
        except BaseException:
            _fail(batch, StoreUnavailable(_ENDING))
            raise
        else:
            for request, reply in zip(batch, replies, strict=True):
                self._resolve(request, reply)

    async def _pipeline(self, batch: list[_Request]) -> list[Reply]:
        async with asyncio.timeout(self._timeout):
            pipeline = self._redis.pipeline(transaction=False)
            for request in batch:
                if request.script is None:
                    pipeline.execute_command(*request.command)
                else:
                    pipeline.execute_command("EVALSHA", request.script.sha, *request.command)
            return await pipeline.execute(raise_on_error=False)

    async def _load(self, unknown: set[Script]) -> None:
        async with asyncio.timeout(self._timeout):
            for script in unknown:
                await self._redis.script_load(script.text)

    def _resolve(self, request: _Request, reply: Reply) -> None:
        if request.reply.done():
            return
        if not isinstance(reply, Exception):
            if request.script is not None:
                took = time.monotonic() - request.asked
                self._script_seconds[request.script.name].observe(took)
            request.reply.set_result(reply)
            return
        self.count_error()
        text = reply_text(reply)
        if isinstance(reply, ResponseError) and not is_transient(reply):
            # A script or a command of ours is wrong: a defect, not an outage.
            log.error("redis.error", server=self._server, command=request.name, error=text)
        else:
            log.warning("redis.refused", server=self._server, command=request.name, error=text)
        request.reply.set_exception(StoreUnavailable(text))

    def _mark_down(self, error: BaseException) -> None:
        self._down_why = error.why if isinstance(error, StoreUnavailable) else describe(error)
        if self._down_since is None:
            self._down_since = asyncio.get_running_loop().time()
            log.error("redis.down", server=self._server, error=self._down_why)
            self._down.set()
        self._fail_waiting(StoreUnavailable(self._down_why))

    def _fail_waiting(self, error: StoreUnavailable) -> None:
        waiting, self._waiting, self._waiting_bytes = self._waiting, deque(), 0
        _fail(waiting, error)

    async def _reconnect(self) -> None:
        while not _is_cancelled():
            await self._down.wait()
            try:
                await self.connect()
            except StoreUnavailable as error:
                self._down_why = error.why
                await asyncio.sleep(RECONNECT_SECONDS)
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
    """Tell whether the present task was cancelled, also if the cancellation was lost.

    redis-py writes within `asyncio.wait_for`, which in Python 3.11 returns instead of being cancelled if the write
    was done in the same turn of the event loop.
    """
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _fail(requests: Iterable[_Request], error: StoreUnavailable) -> None:
    for request in requests:
        if not request.reply.done():
            request.reply.set_exception(error)
