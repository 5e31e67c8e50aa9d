"""A client of a Redis Cluster: one pipelining client for each master, and the map of the slots.

A command goes to the master of its first key; all keys of a script lie in one slot. The map comes from any member, and
is asked for again when a master redirects (MOVED) or is away. What a master redirects is sent again, because it was not
executed; while a slot is being moved (ASK, TRYAGAIN) its commands wait, for as long as a command may take.

Each master is up or down by itself. The calls to the slots of one that is down fail immediately, and the others go on.
The client as a whole is up if the masters of the needed keys are.
"""

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial

import structlog
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import MovedError, ResponseError

from relay.model.errors import StoreUnavailable
from relay.observability.metrics import Metrics
from relay.redis import scripts
from relay.redis.client import RedisClient, Request
from relay.redis.connect import Members
from relay.redis.connection import Command, Reply, pack
from relay.redis.failures import CONNECTION_ERRORS, ErrorReply, describe
from relay.redis.identity import ClusterCheck
from relay.redis.scripts import Script
from relay.redis.sharding.slot_hold import SlotHold
from relay.redis.sharding.slot_map import SLOTS, parse_redirection, parse_slots, slot_of
from relay.redis.store_url import Address
from relay.redis.unreadable import Unreadable

log = structlog.get_logger()

_CHECK_SECONDS = 0.5
"""The time after which a master that is away, or a slot without one, has the map asked for again."""
_SHARDED_PUBSUB = 7
"""The first version with sharded publish/subscribe."""
_ATTEMPTS = 3
"""The servers to which one connection of a caller's own may be redirected."""
_EARLY_REQUESTS = 10_000
_ENDING = "the node is shutting down"


class ClusterClient:
    """A pipelining client of a Redis Cluster.

    The commands of one slot are executed in the order of the calls. Between slots there is no order. A call that failed
    with `StoreUnavailable` may have been executed. No command is executed twice.
    """

    def __init__(
        self,
        members: Members,
        *,
        timeout: float,
        metrics: Metrics,
        cluster: ClusterCheck | None = None,
        needed: Callable[[], Sequence[str]],
    ) -> None:
        """`timeout` bounds the times of a command as in `RedisClient`; they begin again after a redirection.

        `cluster` checks the data, if given. `needed` returns the keys without which a node cannot serve.
        """
        self._members = members
        self._timeout = timeout
        self._metrics = metrics
        self.unreadable = Unreadable(metrics)
        self._cluster = cluster or ClusterCheck("")
        self._needed = needed
        self._scripts = [script.sharded if members.sharded else script for script in scripts.ALL]
        self._shards: dict[Address, RedisClient] = {}
        self._serving: dict[Address, asyncio.Task[None]] = {}
        self._slots: list[RedisClient | None] = [None] * SLOTS
        self._holds: dict[int, SlotHold] = {}
        self._early: list[Request] = []
        """The requests that were made before the first map."""
        self._failure: StoreUnavailable | None = None
        """The reason why there is no map yet, after the first attempt."""
        self._is_mapped = False
        self._refresh = asyncio.Event()
        self._came_up = asyncio.Event()
        self._tasks: asyncio.TaskGroup | None = None
        self._ended = False
        self._on_up: list[Callable[[], Awaitable[None]]] = []
        self._on_mapped: list[Callable[[], None]] = []

    @property
    def is_up(self) -> bool:
        """True while the masters of the needed keys answer."""
        if not self._is_mapped:
            return self._failure is None
        return all(shard is not None and shard.is_up for shard in self._needed_slots())

    @property
    def masters_away(self) -> int:
        """The number of masters that do not answer."""
        return sum(not shard.is_up for shard in self._shards.values())

    @property
    def refusal(self) -> str | None:
        """The code of the error with which a needed master refuses every connection now; else None."""
        return next((shard.refusal for shard in self.needed_shards if shard.refusal is not None), None)

    @property
    def cluster_id(self) -> str:
        """The id of the cluster that the store has to hold; empty as long as any will do."""
        return self._cluster.expected

    async def confirm_cluster(self) -> None:
        """Check that the store still holds this node's cluster. Raises: StoreUnavailable."""
        if self.cluster_id:
            found = await self.call("GET", self._cluster.key)
            self._cluster.check(None if found is None else bytes(found).decode())

    @property
    def is_sharded(self) -> bool:
        """True if a message is published within the shard of its topic only."""
        return self._members.sharded

    def on_up(self, callback: Callable[[], Awaitable[None]]) -> None:
        """Have `callback` awaited, in the order of registration, after each outage of a master.

        One that raises StoreUnavailable is called again.
        """
        self._on_up.append(callback)

    def link_to(self, key: str) -> object | None:
        """Return the connection to the master of a key; None while there is none."""
        shard = self.shard_of(key)
        return None if shard is None else shard.link_to(key)

    def call(self, *command: bytes | str | float) -> "asyncio.Future[Reply]":
        """Send one command whose first argument is its key. Raises, in the future: StoreUnavailable."""
        if self._members.sharded and command[0] == "PUBLISH":
            command = ("SPUBLISH", *command[1:])
        return self._submit(str(command[0]), command, None, str(command[1]))

    def run(self, script: Script, keys: Sequence[str], *args: bytes | str | float) -> "asyncio.Future[Reply]":
        """Run one script, whose keys are in one slot, atomically. Raises, in the future: StoreUnavailable."""
        if self._members.sharded:
            script = script.sharded
        return self._submit(script.name, ("EVALSHA", script.sha, len(keys), *keys, *args), script, keys[0])

    def count_error(self) -> None:
        """Count an error of Redis or of a connection to it."""
        self._metrics.redis_errors.inc()

    def count_reconnect(self) -> None:
        """Count a connection that was made again."""
        self._metrics.redis_reconnects.inc()

    async def connection(self, key: str | None = None) -> AbstractConnection:
        """Open a connection of the caller's own to the master of a key, or to any. Raises: StoreUnavailable."""
        for _ in range(_ATTEMPTS):
            shard = next(self._masters_up(), None) if key is None else self.shard_of(key)
            if shard is None:
                raise self._failure or StoreUnavailable(_no_master())
            opened = await shard.connection()
            if key is None or await self._has(opened, key):
                return opened
        raise StoreUnavailable("its slot is being moved")

    async def serve(self) -> None:
        """Carry commands until cancelled. Commands that wait then fail, and so does every later call."""
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                tasks.create_task(self._call_back_after_outages())
                await self._keep_map()
        finally:
            self._ended = True
            error = StoreUnavailable(_ENDING)
            for hold in self._holds.values():
                hold.fail(error)
            _fail_all(self._early, error)

    # --- The shards, for those that subscribe at each of them ---

    @property
    def shards(self) -> dict[Address, RedisClient]:
        """The clients of the masters, by address."""
        return self._shards

    def shard_of(self, key: str) -> RedisClient | None:
        """Return the client of the master that has a key's slot; None if none is known."""
        return self._slots[slot_of(key)]

    @property
    def needed_shards(self) -> list[RedisClient]:
        """The clients of the masters of the needed keys; empty before the first map."""
        return [shard for shard in self._needed_slots() if shard is not None]

    def on_mapped(self, callback: Callable[[], None]) -> None:
        """Have `callback` called each time that the map was asked for, whether or not it has changed."""
        self._on_mapped.append(callback)

    def refresh(self) -> None:
        """Have the map asked for again."""
        self._refresh.set()

    # --- Out ---

    def _submit(self, name: str, command: Command, script: Script | None, key: str) -> "asyncio.Future[Reply]":
        reply: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._send(Request(name, pack(command), script, reply, slot_of(key)))
        return reply

    def _send(self, request: Request) -> None:
        hold, shard = self._holds.get(request.slot), self._slots[request.slot]
        if hold is not None:
            hold.add(request)
        elif shard is not None:
            shard.submit(request)
        elif self._ended:
            request.fail(StoreUnavailable(_ENDING))
        elif self._is_mapped or self._failure is not None or len(self._early) >= _EARLY_REQUESTS:
            request.fail(self._failure or StoreUnavailable(_no_master()))
        else:
            self._early.append(request)

    # --- Redirections ---

    def _redirected(self, address: Address, request: Request, reply: ErrorReply) -> bool:
        """Take an error reply of a shard. False if it is none of a Cluster's own."""
        code, text = reply.code, str(reply)
        if code == "CLUSTERDOWN":
            self._refresh.set()
            request.fail(StoreUnavailable(text))
        elif code not in ("MOVED", "ASK", "TRYAGAIN"):
            return False
        elif self._ended or request.asked + self._timeout <= time.monotonic():
            request.fail(StoreUnavailable(_ENDING if self._ended else "its slot is being moved"))
        else:
            redirection = None if code == "TRYAGAIN" else parse_redirection(text, address)
            hold = self._holds.get(request.slot) or self._hold(request.slot, self._shards[address])
            if redirection is not None and redirection.is_moved:
                self._move(request.slot, redirection.address)
            hold.add_redirected(request, redirection)
        return True

    def _hold(self, slot: int, shard: RedisClient) -> SlotHold:
        """Have new requests of a slot wait for those that are on their way to a master."""
        hold = self._holds[slot] = SlotHold(shard.requests_of(slot), partial(self._release, slot))
        return hold

    def _release(self, slot: int) -> None:
        for request, redirection in self._holds.pop(slot).requests():
            if redirection is None or redirection.is_moved:
                self._send(request)
            else:
                self._shard_at(redirection.address).submit(request, asking=True)

    async def _has(self, opened: AbstractConnection, key: str) -> bool:
        """Ask the server of a new connection for a key. If another one has its slot, the connection is closed."""
        try:
            async with asyncio.timeout(self._timeout):
                await opened.send_command("EXISTS", key)
                await opened.read_response()
        except MovedError as error:
            self._move(slot_of(key), error.node_addr)
            await opened.disconnect(nowait=True)
            return False
        except BaseException as error:
            await opened.disconnect(nowait=True)
            if isinstance(error, CONNECTION_ERRORS):
                raise StoreUnavailable(describe(error)) from error
            raise
        return True

    def _move(self, slot: int, address: Address) -> None:
        """Take note that another server has a slot now."""
        former = self._slots[slot]
        self._assign(slot, self._shard_at(address), set() if former is None else former.busy_slots())
        self._refresh.set()

    def _assign(self, slot: int, shard: RedisClient | None, busy: set[int]) -> None:
        """Send the requests of a slot to another master; `busy` are the slots with requests that the former one has."""
        former, self._slots[slot] = self._slots[slot], shard
        if former is None or former is shard:
            return
        if slot in busy and slot not in self._holds:
            self._hold(slot, former)
        if not former.is_up:
            self._came_up.set()  # its replica has taken over, perhaps without the last writes

    # --- The map ---

    async def _keep_map(self) -> None:
        while True:
            try:
                self._apply(await self._ask())
            except StoreUnavailable as error:
                self._give_up_early(error)
            for callback in self._on_mapped:
                callback()
            await asyncio.sleep(_CHECK_SECONDS)  # whatever is wrong: not more often than that
            while not self._is_in_doubt:
                try:
                    async with asyncio.timeout(_CHECK_SECONDS):
                        await self._refresh.wait()
                except TimeoutError:
                    continue

    @property
    def _is_in_doubt(self) -> bool:
        """True if the map has to be asked for."""
        return self._refresh.is_set() or None in self._slots or not all(each.is_up for each in self._shards.values())

    async def _ask(self) -> dict[int, Address]:
        """Return the master of each slot, by the first member that answers. Raises: StoreUnavailable."""
        self._refresh.clear()
        reasons: dict[str, list[str]] = {}
        for address in self._candidates():
            try:
                async with asyncio.timeout(self._timeout / 2):
                    slots, version = await _ask_member(self._members, address)
            except CONNECTION_ERRORS as error:
                reasons.setdefault(_reason(error), []).append(f"{address[0]}:{address[1]}")
                continue
            if self.is_sharded and version < _SHARDED_PUBSUB:
                raise StoreUnavailable("the Cluster has no sharded publish/subscribe: add `?pubsub=classic` to its URL")
            return parse_slots(slots, address)
        told = "; ".join(f"{reason} ({', '.join(names)})" for reason, names in reasons.items())
        raise StoreUnavailable(f"no member of the Cluster answers: {told}")

    def _candidates(self) -> list[Address]:
        """Return the members to ask: those that are up first, each of them first in turn."""
        up = [address for address, shard in self._shards.items() if shard.is_up]
        turn = int(time.monotonic() / _CHECK_SECONDS) % max(1, len(up))
        return list(dict.fromkeys([*up[turn:], *up[:turn], *self._members.seeds, *self._shards]))

    def _apply(self, masters: dict[int, Address]) -> None:
        if not masters and not self._is_mapped:
            raise StoreUnavailable("the Cluster has no slots yet")
        before = set(self._shards)
        busy = {slot for shard in self._shards.values() for slot in shard.busy_slots()}
        for slot in range(SLOTS):
            address = masters.get(slot)
            self._assign(slot, None if address is None else self._shard_at(address), busy)
        self._end_idle(set(masters.values()))
        if before != set(self._shards):
            log.info("cluster.mapped", masters=sorted(f"{host}:{port}" for host, port in self._shards))
        self._is_mapped = True
        early, self._early = self._early, []
        for request in early:
            self._send(request)

    def _give_up_early(self, error: StoreUnavailable) -> None:
        """Fail what waits for the first map; what comes until there is one fails at once."""
        if not self._is_mapped:
            self._failure = error
            _fail_all(self._early, error)
        log.debug("cluster.not_mapped", error=error.why)

    def _shard_at(self, address: Address) -> RedisClient:
        shard = self._shards.get(address)
        if shard is None:
            assert self._tasks is not None  # noqa: S101 - a map comes from `serve`
            shard = self._shards[address] = RedisClient(
                self._members.at(address),
                timeout=self._timeout,
                metrics=self._metrics,
                server=f"{address[0]}:{address[1]}",
                redirect=partial(self._redirected, address),
                load=self._scripts,
            )
            shard.on_up(self._note_up)
            self._serving[address] = self._tasks.create_task(shard.serve())
        return shard

    def _end_idle(self, masters: set[Address]) -> None:
        """End the clients of servers that have no slots any more."""
        used = {id(shard) for shard in self._slots}
        for address, shard in list(self._shards.items()):
            if address not in masters and id(shard) not in used and not shard.busy_slots():
                del self._shards[address]
                self._serving.pop(address).cancel()

    # --- Outages ---

    async def _note_up(self) -> None:
        self._came_up.set()

    async def _call_back_after_outages(self) -> None:
        while True:
            await self._came_up.wait()
            self._came_up.clear()
            try:
                await self.confirm_cluster()
                for callback in self._on_up:
                    await callback()
            except StoreUnavailable as error:
                log.debug("cluster.not_taken_up", error=error.why)
                self._came_up.set()
                await asyncio.sleep(_CHECK_SECONDS)

    def _needed_slots(self) -> list[RedisClient | None]:
        return [self._slots[slot_of(key)] for key in self._needed()]

    def _masters_up(self) -> Iterator[RedisClient]:
        return (shard for shard in self._shards.values() if shard.is_up)


async def _ask_member(members: Members, address: Address) -> tuple[list[Reply], int]:
    """Return the reply of a member to CLUSTER SLOTS, and its major version."""
    pool = members.at(address)(socket_timeout=None).connection_pool  # with one, redis-py may swallow a cancellation
    connection: AbstractConnection = pool.make_connection()  # type: ignore[no-untyped-call]
    try:
        await connection.connect()  # type: ignore[no-untyped-call]
        await connection.send_command("CLUSTER", "SLOTS")
        await connection.send_command("INFO", "server")
        slots, server = await connection.read_response(), await connection.read_response()
    finally:
        await connection.disconnect(nowait=True)
    found = re.search(rb"^redis_version:(\d+)", bytes(server), re.MULTILINE)
    return slots, int(found[1]) if found else _SHARDED_PUBSUB


def _reason(error: BaseException) -> str:
    if isinstance(error, ResponseError) and "cluster support disabled" in str(error):
        return "it is a server of its own, for a URL that begins with redis:// or rediss://"
    return describe(error)


def _no_master() -> str:
    return "no server of the Cluster has the slot"


def _fail_all(requests: list[Request], error: StoreUnavailable) -> None:
    for request in requests:
        request.fail(error)
    requests.clear()
