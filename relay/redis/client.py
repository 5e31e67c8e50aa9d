"""A pipelining Redis client: one connection carries everybody's commands, and an outage fails all of them immediately.

Every command goes through `call` or `run`. It is packed when it is called, and written with the others of the same turn
of the event loop; the replies come back in the same order (docs/decisions/0002).

After a connection error or a time-out the client is *down*: calls fail immediately with `StoreUnavailable`, which
carries the error of the last attempt, while the client tries to connect every 100 ms. When Redis answers, the client is
up again and the `on_up` callbacks run.
"""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from itertools import islice

import structlog
from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError as LostConnection
from redis.exceptions import InvalidResponse, NoScriptError, ResponseError

from relay.model.errors import StoreUnavailable
from relay.observability.metrics import Metrics
from relay.redis import scripts
from relay.redis.connection import Command, Connection, Reply, attach, pack
from relay.redis.failures import CONNECTION_ERRORS, RECONNECT_SECONDS, describe, is_transient, reply_text
from relay.redis.scripts import Script
from relay.redis.unreadable import Unreadable

log = structlog.get_logger()

_IN_FLIGHT_COMMANDS = 1024
_IN_FLIGHT_BYTES = 16 * 1024 * 1024
_WAITING_COMMANDS = 50_000
_WAITING_BYTES = 64 * 1024 * 1024
_LATE_SECONDS = 0.1
"""A timer that is later than this shows that the process was held up: replies may have come in the meantime."""
_ENDING = "the node is shutting down"


class _Request:
    __slots__ = ("asked", "name", "packed", "repeated", "reply", "script", "sent")

    def __init__(self, name: str, packed: bytes, script: Script | None, reply: asyncio.Future[Reply]) -> None:
        self.name = name
        """The name of the script or of the command."""
        self.packed = packed
        self.script = script
        self.reply = reply
        self.repeated = False
        self.asked = self.sent = time.monotonic()


class RedisClient:
    """A pipelining client of one Redis.

    Redis executes the commands in the order of the calls, whichever tasks called. So the order of several calls is
    certain before the first one is answered. The exception is a Redis that was told to forget its scripts (SCRIPT
    FLUSH): those runs that it had to refuse come after the commands that were on their way with them, but never after
    a later run of the same script.

    A call that failed with `StoreUnavailable` may have been executed. No command is executed twice.
    """

    def __init__(
        self, make: Callable[..., "Redis"], *, timeout: float, metrics: Metrics, server: str = "primary"
    ) -> None:
        """`make(**options)` builds a redis-py client.

        `timeout`, in seconds, bounds the time that a command waits to be sent, and the time that its reply takes.
        `server` names the server in the logs.
        """
        self._server = server
        self._pool = make(socket_timeout=None, socket_connect_timeout=timeout).connection_pool
        self._timeout = timeout
        self._metrics = metrics
        self.unreadable = Unreadable(metrics)
        self._script_seconds = {name: metrics.script_seconds.labels(script=name).observe for name in scripts.NAMES}
        self._connection: Connection | None = None
        self._waiting: deque[_Request] = deque()
        self._waiting_bytes = 0
        self._is_flushing = False
        """True while `_flush` is due at the end of this turn of the event loop."""
        self._in_flight: deque[_Request] = deque()
        self._in_flight_bytes = 0
        self._unknown: list[_Request] = []
        """The runs of scripts that Redis does not know. Nothing is sent until all commands in flight are answered."""
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due = 0.0
        self._down_since: float | None = None
        self._down_why = ""
        self._ended = False
        self._on_up: list[Callable[[], Awaitable[None]]] = []

    @property
    def is_up(self) -> bool:
        return self._down_since is None

    def on_up(self, callback: Callable[[], Awaitable[None]]) -> None:
        """Have `callback` awaited, in the order of registration, after each outage of Redis."""
        self._on_up.append(callback)

    def call(self, *command: bytes | str | float) -> asyncio.Future[Reply]:
        """Send one command; the future holds Redis' reply. Raises, in the future: StoreUnavailable."""
        return self._submit(command, None)

    def run(self, script: Script, keys: Sequence[str], *args: bytes | str | float) -> asyncio.Future[Reply]:
        """Run one script atomically; the future holds its result. Raises, in the future: StoreUnavailable."""
        return self._submit((len(keys), *keys, *args), script)

    def count_error(self) -> None:
        """Count an error of Redis or of a connection to it."""
        self._metrics.redis_errors.inc()

    def count_reconnect(self) -> None:
        """Count a connection that was made again."""
        self._metrics.redis_reconnects.inc()

    async def connection(self) -> AbstractConnection:
        """Open a connection of the caller's own, without a read time-out. Raises: StoreUnavailable."""
        return await self._open(())

    async def serve(self) -> None:
        """Carry commands until cancelled. Commands that wait then fail, and so does every later call."""
        clock = asyncio.get_running_loop().time
        try:
            while True:
                began = clock()
                try:
                    await self._serve_connection()
                except StoreUnavailable as error:
                    self._mark_down(error.why)
                await asyncio.sleep(began + RECONNECT_SECONDS - clock())
        finally:
            self._ended = True
            self._fail_all(StoreUnavailable(_ENDING))
            if self._timer is not None:
                self._timer.cancel()

    # --- Connections ---

    async def _open(self, load: Sequence[Script]) -> AbstractConnection:
        """Open a connection and prepare it. Raises: StoreUnavailable."""
        connection: AbstractConnection = self._pool.make_connection()  # type: ignore[no-untyped-call]
        try:
            async with asyncio.timeout(self._timeout):
                await connection.connect()  # type: ignore[no-untyped-call]
                await _prepare(connection, load)
        except BaseException as error:
            await connection.disconnect(nowait=True)
            if isinstance(error, CONNECTION_ERRORS):
                raise StoreUnavailable(describe(error)) from error
            raise
        return connection

    async def _serve_connection(self) -> None:
        """Carry commands over a new connection until it is lost.

        Raises:
            StoreUnavailable: if there is none, or one of the callbacks has failed.
        """
        opened = await self._open(scripts.ALL)
        self._connection = connection = attach(opened, self._receive, self._lose, self._flush)
        try:
            self._flush()
            await self._come_up()
            error = await connection.lost
        finally:
            self._connection = None
            await connection.close()
        if not isinstance(error, CONNECTION_ERRORS):
            raise error

    async def _come_up(self) -> None:
        """End the outage, if there is one. Raises StoreUnavailable if a callback does."""
        since, self._down_since = self._down_since, None
        if since is None:
            return
        self.count_reconnect()
        away = asyncio.get_running_loop().time() - since
        log.info("redis.up", server=self._server, away_seconds=round(away, 3))
        for callback in self._on_up:
            await callback()

    def _lose(self, error: Exception) -> None:
        """Give the connection up; `serve` makes a new one."""
        self._connection = None
        self._mark_down(describe(error))

    def _mark_down(self, why: str) -> None:
        self._down_why = why
        if self._down_since is None:
            self._down_since = asyncio.get_running_loop().time()
            self.count_error()
            log.error("redis.down", server=self._server, error=why)
        self._fail_all(StoreUnavailable(why))

    def _fail_all(self, error: StoreUnavailable) -> None:
        """Fail every command that has not been answered."""
        requests = [*self._unknown, *self._in_flight, *self._waiting]
        self._unknown.clear()
        self._in_flight.clear()
        self._waiting.clear()
        self._in_flight_bytes = self._waiting_bytes = 0
        _fail(requests, error)

    # --- Out ---

    def _submit(self, command: Command, script: Script | None) -> asyncio.Future[Reply]:
        loop = asyncio.get_running_loop()
        reply: asyncio.Future[Reply] = loop.create_future()
        if self._ended:
            reply.set_exception(StoreUnavailable(_ENDING))
        elif self._down_since is not None:
            reply.set_exception(StoreUnavailable(self._down_why))
        elif len(self._waiting) >= _WAITING_COMMANDS or self._waiting_bytes >= _WAITING_BYTES:
            reply.set_exception(StoreUnavailable("too many commands are waiting"))
        else:
            if script is None:
                request = _Request(str(command[0]), pack(command), None, reply)
            else:
                request = _Request(script.name, pack(("EVALSHA", script.sha, *command)), script, reply)
            self._waiting.append(request)
            self._waiting_bytes += len(request.packed)
            self._flush_soon()
            if self._timer is None:
                self._check_time_in(self._timeout)
        return reply

    def _flush_soon(self) -> None:
        """Send at the end of this turn of the event loop: with everything else that is called in it."""
        if not self._is_flushing:
            self._is_flushing = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        """Send what waits, as far as the bounds allow."""
        self._is_flushing = False
        if self._connection is None or not self._connection.can_write or self._unknown:
            return
        requests: list[_Request] = []
        room, size = _IN_FLIGHT_COMMANDS - len(self._in_flight), self._in_flight_bytes
        while self._waiting and len(requests) < room and size < _IN_FLIGHT_BYTES:
            request = self._waiting.popleft()
            self._waiting_bytes -= len(request.packed)
            if not request.reply.done():  # its caller has given up
                requests.append(request)
                size += len(request.packed)
        if requests:
            self._send(self._connection, requests)

    def _send(self, connection: Connection, requests: list[_Request]) -> None:
        now = time.monotonic()
        for request in requests:
            request.sent = now
            self._in_flight_bytes += len(request.packed)
        self._in_flight.extend(requests)
        connection.write([request.packed for request in requests])

    # --- In ---

    def _receive(self, reply: Reply) -> None:
        """Take the reply to the oldest command in flight."""
        try:
            request = self._in_flight.popleft()
        except IndexError:
            raise InvalidResponse("a reply to no command") from None
        self._in_flight_bytes -= len(request.packed)
        if isinstance(reply, Exception):
            self._refuse(request, reply)
        elif not request.reply.done():
            if request.script is not None:
                self._script_seconds[request.name](time.monotonic() - request.asked)
            request.reply.set_result(reply)
        if self._unknown:
            self._hold(request)
        elif self._waiting:
            self._flush_soon()

    def _refuse(self, request: _Request, reply: Exception) -> None:
        if isinstance(reply, LostConnection):  # Redis is loading, or does not accept this user any more
            _fail([request], StoreUnavailable(describe(reply)))
            raise reply
        if isinstance(reply, NoScriptError) and request.script is not None and not request.repeated:
            self._unknown.append(request)
            return
        self.count_error()
        text = reply_text(reply)
        if isinstance(reply, ResponseError) and not is_transient(reply):
            # A script or a command of ours is wrong: a defect, not an outage.
            log.error("redis.error", server=self._server, command=request.name, error=text)
        else:
            log.warning("redis.refused", server=self._server, command=request.name, error=text)
        _fail([request], StoreUnavailable(text))

    # --- Scripts that Redis does not know ---

    def _hold(self, answered: _Request) -> None:
        """Go on with the commands in flight; send nothing more before the unknown scripts are loaded."""
        if answered is not self._unknown[-1]:
            self._fail_overtaken(answered)
        if not self._in_flight:
            self._repeat_unknown()

    def _fail_overtaken(self, later: _Request) -> None:
        """Fail the runs that would come after a later run of the same script: another client has just loaded it."""
        overtaken = [request for request in self._unknown if request.script is later.script]
        self._unknown = [request for request in self._unknown if request.script is not later.script]
        _fail(overtaken, StoreUnavailable("Redis did not know the script"))

    def _repeat_unknown(self) -> None:
        """Load the scripts, and send the runs again that were refused, in their order and before all that waits."""
        unknown, self._unknown = self._unknown, []
        for request in unknown:
            request.repeated = True
        self._waiting.extendleft(reversed(unknown))
        self._waiting_bytes += sum(len(request.packed) for request in unknown)
        loads = [_load(script) for script in dict.fromkeys(request.script for request in unknown) if script]
        if loads and self._connection is not None:
            self._send(self._connection, loads)
        self._flush()

    # --- Time ---

    def _check_time_in(self, seconds: float) -> None:
        self._timer_due = time.monotonic() + seconds
        self._timer = asyncio.get_running_loop().call_later(seconds, self._check_time)

    def _check_time(self) -> None:
        """Fail what has waited for too long, give up a connection that does not answer, and come back in time."""
        self._timer = None
        now = time.monotonic()
        if now - self._timer_due > _LATE_SECONDS:
            self._check_time_in(_LATE_SECONDS)
            return
        overdue = now - self._timeout
        while self._waiting and self._waiting[0].asked <= overdue:
            request = self._waiting.popleft()
            self._waiting_bytes -= len(request.packed)
            _fail([request], StoreUnavailable(f"not sent within {self._timeout:g} s"))
        if self._connection is not None and self._in_flight and self._in_flight[0].sent <= overdue:
            self._connection.abort(TimeoutError())
        since = [request.sent for request in islice(self._in_flight, 1)]
        since += [request.asked for request in islice(self._waiting, 1)]
        if since:
            self._check_time_in(min(since) - overdue)


async def _prepare(connection: AbstractConnection, load: Sequence[Script]) -> None:
    """Check a new connection before it is used, and load scripts. Every connection comes through here."""
    await connection.send_command("PING")
    await connection.read_response()
    for script in load:
        await connection.send_command("SCRIPT", "LOAD", script.text)
    for _ in load:
        await connection.read_response()
    if await connection.can_read():
        raise LostConnection("Connection closed by server.")


def _load(script: Script) -> _Request:
    """Return a request to load a script. Nobody waits for the reply: a failure shows in the run that follows."""
    nobody: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
    nobody.cancel()
    return _Request("SCRIPT LOAD", pack(("SCRIPT", "LOAD", script.text)), None, nobody)


def _fail(requests: Iterable[_Request], error: StoreUnavailable) -> None:
    for request in requests:
        if not request.reply.done():
            request.reply.set_exception(error)
