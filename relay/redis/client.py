"""A pipelining Redis client: one connection carries everybody's commands, and an outage fails all of them immediately.

Every command goes through `call` or `run`. It is packed when it is called, and written with the others of the same turn
of the event loop; the replies come back in the same order (docs/decisions/0002).

After a connection error, or when nothing is received for twice the time-out, the client is *down*: calls fail
immediately with the error of the last attempt, while the client tries to connect every 100 ms. When Redis answers, the
client is up again and the `on_up` callbacks run.

Every new connection, also those that others ask for (`connection`), is asked for the identity of its server before it
is used. All of them lead to one run of one server: the data of two servers may differ.
"""

import asyncio
import math
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from itertools import takewhile

import structlog
from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import InvalidResponse

from relay.model.errors import StoreDefect, StoreOverloaded, StoreRefused, StoreUnavailable
from relay.observability.metrics import Metrics
from relay.redis import scripts
from relay.redis.connection import Command, Connection, Reply, attach, pack
from relay.redis.connector import Connector
from relay.redis.failures import (
    CONNECTION_ERRORS,
    MUST_RECONNECT,
    RECONNECT_SECONDS,
    ErrorReply,
    failed_connection,
    failed_reply,
)
from relay.redis.identity import ClusterCheck, StoreIdentity
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
_ASKING = pack(("ASKING",))


class Request:
    """A command on its way: how it is sent, and the future of its reply."""

    __slots__ = ("asked", "name", "packed", "redirects", "repeated", "reply", "script", "sent", "slot")

    def __init__(
        self, name: str, packed: bytes, script: Script | None, reply: asyncio.Future[Reply], slot: int = -1
    ) -> None:
        self.name = name
        """The name of the script or of the command."""
        self.packed = packed
        self.script = script
        self.reply = reply
        self.slot = slot
        """The slot of its keys in a Cluster."""
        self.repeated = False
        self.redirects = 0
        """The number of times that a server of a Cluster has redirected it."""
        self.asked = self.sent = time.monotonic()

    def fail(self, error: StoreUnavailable) -> None:
        """End it with an error, unless it has ended."""
        if not self.reply.done():
            self.reply.set_exception(error)


Redirect = Callable[[Request, ErrorReply], bool]
"""Takes a request and its error reply."""


class RedisClient:
    """A pipelining client of one Redis.

    Redis executes the commands in the order of the calls, whichever tasks called. So the order of several calls is
    certain before the first one is answered. The exception is a Redis that was told to forget its scripts (SCRIPT
    FLUSH): those runs that it had to refuse come after the commands that were on their way with them, but never after
    a later run of the same script.

    A call that failed with `StoreUnavailable` may have been executed. No command is executed twice.
    """

    def __init__(
        self,
        make: Callable[..., "Redis"],
        *,
        timeout: float,
        metrics: Metrics,
        cluster: ClusterCheck | None = None,
        replica: bool = False,
        server: str = "",
        redirect: Redirect | None = None,
        load: Sequence[Script] = scripts.ALL,
    ) -> None:
        """`make(**options)` builds a redis-py client. `cluster` checks the data that a connection leads to, if given.

        `timeout`, in seconds, bounds an attempt to connect, and the time that a command waits to be sent; twice that
        bounds the time to its reply. So a command that Redis executes for longer than the time-out delays those behind
        it, and fails none. `replica` allows a replica, and any number of them behind the address.

        For a member of a Cluster, `server` names it in the logs, and `redirect` is offered every error reply: it
        returns True if it takes the request over. `load` are the scripts that a connection for commands loads.
        """
        self._server = server or ("replica" if replica else "primary")
        self._redirect = redirect
        self._load = load
        self._is_replica = replica
        self._connector = Connector(make, timeout=timeout, cluster=cluster, replica=replica)
        self._timeout = timeout
        self._answer_seconds = 2 * timeout
        self._metrics = metrics
        self.unreadable = Unreadable(metrics)
        self._script_seconds = {name: metrics.script_seconds.labels(script=name).observe for name in scripts.NAMES}
        self._connection: Connection | None = None
        self.identity: StoreIdentity | None = None
        """The identity of the server that carries the commands; None while there is none."""
        self._lent: list[tuple[AbstractConnection, str]] = []
        """The connections that others have opened here, each with the run of its server."""
        self._waiting: deque[Request] = deque()
        self._waiting_bytes = 0
        self._is_flushing = False
        """True while `_flush` is due at the end of this turn of the event loop."""
        self._in_flight: deque[Request] = deque()
        self._in_flight_bytes = 0
        self._unknown: list[Request] = []
        """The runs of scripts that Redis does not know. Nothing is sent until all commands in flight are answered."""
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due = 0.0
        self._down_since: float | None = None
        self._down = StoreUnavailable("not connected yet")
        self._ended = False
        self._on_up: list[Callable[[], Awaitable[None]]] = []

    @property
    def is_up(self) -> bool:
        return self._down_since is None

    @property
    def masters_away(self) -> int:
        return int(not self.is_up)

    @property
    def cluster_id(self) -> str:
        """The id of the cluster that Redis has to hold; empty as long as any will do."""
        return self._connector.cluster.expected

    @property
    def refusal(self) -> str | None:
        """The code of the error, such as `LOADING`, with which Redis refuses every connection now; else None."""
        return self._down.word if not self.is_up and isinstance(self._down, StoreRefused) else None

    def on_up(self, callback: Callable[[], Awaitable[None]]) -> None:
        """Have `callback` awaited, in the order of registration, after each outage of Redis."""
        self._on_up.append(callback)

    def link_to(self, key: str) -> object | None:  # noqa: ARG002 - one server has all keys
        """Return the connection that carries commands now; None while there is none."""
        return self._connection

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

    async def connection(self, key: str | None = None) -> AbstractConnection:  # noqa: ARG002 - only a Cluster needs it
        """Open a connection of the caller's own, without a read time-out, to the server that carries the commands.

        It is closed when the commands go to another server. Raises: StoreUnavailable.
        """
        asked_for = self.cluster_id  # of a node that learns its cluster meanwhile, nothing older is judged
        opened, identity = await self._connector.open()
        try:
            self._compare(identity)
            if asked_for:
                self._check(identity.cluster)
        except StoreUnavailable:
            await opened.disconnect(nowait=True)
            raise
        self._lent = [(each, run) for each, run in self._lent if each.is_connected]
        self._lent.append((opened, identity.run_id))
        return opened

    async def confirm_cluster(self) -> None:
        """Check that Redis still holds this node's cluster: it may have been emptied while connections stayed.

        Raises: StoreUnavailable, also if it does not; then every later call does, too.
        """
        if self.cluster_id:
            found = await self.call("GET", self._connector.cluster.key)
            self._check(None if found is None else bytes(found).decode())

    async def serve(self) -> None:
        """Carry commands until cancelled. Commands that wait then fail, and so does every later call."""
        clock = asyncio.get_running_loop().time
        try:
            while True:
                began = clock()
                try:
                    await self._serve_connection()
                except StoreUnavailable as error:
                    self._mark_down(error)
                await asyncio.sleep(began + RECONNECT_SECONDS - clock())
        finally:
            self._ended = True
            self._fail_all(StoreUnavailable(_ENDING))
            if self._timer is not None:
                self._timer.cancel()

    # --- Connections ---

    def _compare(self, identity: StoreIdentity) -> None:
        """Have all connections made again if this one leads to another server than the commands.

        Raises: StoreUnavailable.
        """
        if self.identity is not None and not self._is_replica and identity.run_id != self.identity.run_id:
            error = StoreUnavailable("the address leads to another server than before")
            self._give_up(error)
            raise error

    def _check(self, cluster: str | None) -> None:
        """Have all connections end if Redis holds another cluster than this node's. Raises: StoreUnavailable."""
        try:
            self._connector.check(cluster)
        except StoreUnavailable as error:
            self._give_up(error)
            raise

    async def _serve_connection(self) -> None:
        """Carry commands over a new connection until it is lost.

        Raises:
            StoreUnavailable: if there is none, or one of the callbacks has failed.
        """
        asked_for = self.cluster_id
        opened, identity = await self._connector.open(self._load)
        try:
            if asked_for:
                self._check(identity.cluster)
        except StoreUnavailable:
            await opened.disconnect(nowait=True)
            raise
        self._connection = connection = attach(opened, self._receive, self._lose, self._flush)
        self.identity = identity
        try:
            await self._end_lent(other_than=identity.run_id)
            self._flush()
            await self._come_up()
            error = await connection.lost
        finally:
            self._connection = self.identity = None
            await connection.close()
        if isinstance(error, ErrorReply):
            await self._end_lent()
        if not isinstance(error, CONNECTION_ERRORS):
            raise error

    async def _end_lent(self, *, other_than: str | None = None) -> None:
        """End the connections of others, except those to that run of the server."""
        if self._is_replica:
            return
        kept = [(each, run) for each, run in self._lent if run == other_than]
        ended = [each for each, run in self._lent if run != other_than]
        self._lent = kept
        for each in ended:
            await each.disconnect(nowait=True)

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
        """Take the loss of the connection; `serve` makes a new one."""
        self._connection = self.identity = None
        self._mark_down(failed_connection(error))

    def _give_up(self, error: StoreUnavailable) -> None:
        """End the connection that carries commands."""
        if self._connection is not None:
            self._connection.abort(error)

    def _mark_down(self, error: StoreUnavailable) -> None:
        self._down = error
        if self._down_since is None:
            self._down_since = asyncio.get_running_loop().time()
            self.count_error()
            log.error("redis.down", server=self._server, error=error.why)
        self._fail_all(error)

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
        reply: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        if script is None:
            self.submit(Request(str(command[0]), pack(command), None, reply))
        else:
            self.submit(Request(script.name, pack(("EVALSHA", script.sha, *command)), script, reply))
        return reply

    def submit(self, request: Request, *, asking: bool = False) -> None:
        """Send a request, or fail it if that is impossible now. `asking` is the answer to an ASK of a Cluster."""
        if self._ended:
            request.fail(StoreUnavailable(_ENDING))
        elif self._down_since is not None:
            request.fail(_again(self._down))
        elif len(self._waiting) >= _WAITING_COMMANDS or self._waiting_bytes >= _WAITING_BYTES:
            self._metrics.redis_overloads.inc()
            request.fail(StoreOverloaded("too many commands are waiting"))
        else:
            self._waiting.extend((_asking(), request) if asking else (request,))
            self._waiting_bytes += len(request.packed) + asking * len(_ASKING)
            self._flush_soon()
            if self._timer is None:
                self._check_time_in(self._timeout)

    def requests_of(self, slot: int) -> list[Request]:
        """Return the requests of a slot that are not answered yet, in the order of the calls."""
        return [each for each in (*self._unknown, *self._in_flight, *self._waiting) if each.slot == slot]

    def busy_slots(self) -> set[int]:
        """Return the slots of the requests that are not answered yet."""
        return {each.slot for each in (*self._unknown, *self._in_flight, *self._waiting)}

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
        requests: list[Request] = []
        room, size = _IN_FLIGHT_COMMANDS - len(self._in_flight), self._in_flight_bytes
        while self._waiting and len(requests) < room and size < _IN_FLIGHT_BYTES:
            request = self._waiting.popleft()
            self._waiting_bytes -= len(request.packed)
            if not request.reply.done():  # its caller has given up
                requests.append(request)
                size += len(request.packed)
        if requests:
            self._send(self._connection, requests)

    def _send(self, connection: Connection, requests: list[Request]) -> None:
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
        if isinstance(reply, ErrorReply):
            self._refuse(request, reply)
        elif not request.reply.done():
            if request.script is not None:
                self._script_seconds[request.name](time.monotonic() - request.asked)
            request.reply.set_result(reply)
        if self._unknown:
            self._hold(request)
        elif self._waiting:
            self._flush_soon()

    def _refuse(self, request: Request, reply: ErrorReply) -> None:
        if self._redirect is not None and self._redirect(request, reply):
            return
        if reply.code == "NOSCRIPT" and request.script is not None and not request.repeated:
            self._unknown.append(request)
            return
        error = failed_reply(reply)
        _fail([request], error)
        if reply.code in MUST_RECONNECT:
            raise reply
        self.count_error()
        if isinstance(error, StoreDefect):
            log.error("redis.error", server=self._server, command=request.name, error=error.why)
        else:
            log.warning("redis.refused", server=self._server, command=request.name, error=error.why)

    # --- Scripts that Redis does not know ---

    def _hold(self, answered: Request) -> None:
        """Go on with the commands in flight; send nothing more before the unknown scripts are loaded."""
        if answered is not self._unknown[-1]:
            self._fail_overtaken(answered)
        if not self._in_flight:
            self._repeat_unknown()

    def _fail_overtaken(self, later: Request) -> None:
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
        """Fail what has waited for too long, give up a connection that is silent, and come back in time."""
        self._timer = None
        now = time.monotonic()
        if now - self._timer_due > _LATE_SECONDS:
            self._check_time_in(_LATE_SECONDS)
            return
        due = min(self._fail_unsent(now), self._fail_unanswered(now))
        if due < math.inf:
            self._check_time_in(due - now)

    def _fail_unsent(self, now: float) -> float:
        """Fail the commands that were not sent in time. Returns the time at which that has to be looked at again."""
        while self._waiting and self._waiting[0].asked + self._timeout <= now:
            request = self._waiting.popleft()
            self._waiting_bytes -= len(request.packed)
            _fail([request], StoreUnavailable(f"not sent within {self._timeout:g} s"))
        return self._waiting[0].asked + self._timeout if self._waiting else math.inf

    def _fail_unanswered(self, now: float) -> float:
        """Fail the commands that take too long, and the connection if it is silent. Returns when to look again."""
        if not self._in_flight or self._connection is None:
            return math.inf
        silent_at = max(self._in_flight[0].sent, self._connection.heard_at) + self._answer_seconds
        if silent_at <= now:
            self._connection.abort(TimeoutError())
            return math.inf
        late = takewhile(lambda request: request.asked + self._answer_seconds <= now, self._in_flight)
        _fail(late, StoreUnavailable(f"not answered within {self._answer_seconds:g} s"))
        oldest = next((request.asked for request in self._in_flight if not request.reply.done()), now)
        return min(silent_at, oldest + self._answer_seconds)


def _again(error: StoreUnavailable) -> StoreUnavailable:
    """Return an equal error: each one that is raised collects a traceback."""
    return StoreRefused(error.word, error.why) if isinstance(error, StoreRefused) else StoreUnavailable(error.why)


def _load(script: Script) -> Request:
    """Return a request to load a script. Nobody waits for the reply: a failure shows in the run that follows."""
    nobody: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
    nobody.cancel()
    return Request("SCRIPT LOAD", pack(("SCRIPT", "LOAD", script.text)), None, nobody)


def _asking() -> Request:
    """Return a request to carry out the next one although its slot is still being moved. Nobody waits for the reply."""
    nobody: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
    nobody.add_done_callback(lambda reply: reply.cancelled() or reply.exception())
    return Request("ASKING", _ASKING, None, nobody)


def _fail(requests: Iterable[Request], error: StoreUnavailable) -> None:
    for request in requests:
        request.fail(error)
