"""Faults of the store: it dies, stops, refuses, and forgets; its disk is full, and its clock jumps."""

import asyncio
import random
import resource
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from redis.asyncio import Redis as AsyncRedis
from redis.exceptions import RedisError

from tests.chaos.fault import Fault, Place
from tests.chaos.node_faults import ended, every_node
from tests.chaos.topology import Topology
from tests.support.nodes import NodeProcess
from tests.support.waiting import pause

_TOLD = (
    ("subscribers are cut", 0.1, "CLIENT KILL TYPE pubsub", ""),
    ("commands are cut", 0.1, "CLIENT KILL TYPE normal SKIPME yes", ""),
    ("scripts are forgotten", 0.1, "SCRIPT FLUSH", ""),
    ("writes pause", 2.0, "CLIENT PAUSE 60000 WRITE", "CLIENT UNPAUSE"),
    ("no memory", 3.0, "CONFIG SET maxmemory 1", "CONFIG SET maxmemory 0"),
    ("no permission", 3.0, "ACL SETUSER default -evalsha", "ACL SETUSER default +evalsha"),
    ("too few replicas", 3.0, "CONFIG SET min-replicas-to-write 9", "CONFIG SET min-replicas-to-write 0"),
    ("read-only", 3.0, "REPLICAOF 127.0.0.1 1", "REPLICAOF NO ONE"),
)
"""What a server can be told: a name, the longest time in seconds, the command, and the one that undoes it."""


def _always(_: Topology) -> bool:
    return True


def _has_clocks(topology: Topology) -> bool:
    return topology.has_clocks


def _takes_replicaof(topology: Topology) -> bool:
    return topology.takes_replicaof


def _is_alone(topology: Topology) -> bool:
    """Tell whether nobody else decides which server is the primary."""
    return not topology.is_watched


def _told(name: str, longest: float, command: str, undo: str) -> Fault:
    @asynccontextmanager
    async def apply(topology: Topology, _: random.Random) -> AsyncIterator[None]:
        store = topology.primary
        with store.client() as client:
            client.execute_command(*command.split())
        try:
            yield
        finally:
            if undo:
                with store.client() as client:
                    client.execute_command(*undo.split())

    fits = _takes_replicaof if command.startswith("REPLICAOF") else _always
    return Fault(f"store: {name}", Place.STORE, (0.2 * longest, longest), apply, fits=fits)


@asynccontextmanager
async def _killed(topology: Topology, _: random.Random) -> AsyncIterator[None]:
    async with topology.without_primary():
        yield


@asynccontextmanager
async def _everything_killed(topology: Topology, chance: random.Random) -> AsyncIterator[None]:
    async with ended(topology, chance, nodes=every_node, end=NodeProcess.kill), _killed(topology, chance):
        yield


@asynccontextmanager
async def _stopped(topology: Topology, _: random.Random) -> AsyncIterator[None]:
    store = topology.primary
    store.process.pause()
    try:
        yield
    finally:
        store.process.resume()


@asynccontextmanager
async def _busy(topology: Topology, _: random.Random) -> AsyncIterator[None]:
    """Run a script of somebody else that does not end by itself."""
    store = topology.primary
    with store.client() as settings:
        settings.config_set("busy-reply-threshold", 100)
    async with AsyncRedis.from_url(store.process.url, socket_timeout=None) as client:
        running = asyncio.ensure_future(client.eval("while true do end", 0))
        try:
            yield
        finally:
            with store.client() as killer:
                while not running.done():
                    try:
                        killer.script_kill()
                    except RedisError:  # it is not there yet, or has ended
                        await pause(0.05)
                    else:
                        break
            await asyncio.wait([running], timeout=10)
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


@asynccontextmanager
async def _disk_full(topology: Topology, _: random.Random, *, fsync: str) -> AsyncIterator[None]:
    """Let the append-only file not grow. A server that has to write before it replies ends; another one refuses."""
    store = topology.primary
    with store.client() as client:
        client.config_set("appendfsync", fsync)
    resource.prlimit(store.process.pid, resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))
    try:
        yield
    finally:
        if store.process.is_running:
            resource.prlimit(store.process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
            with store.client() as client:
                client.config_set("appendfsync", "always")
        else:
            await store.process.restart()


@asynccontextmanager
async def _clock(topology: Topology, chance: random.Random) -> AsyncIterator[None]:
    clock = topology.primary.clock
    assert clock is not None
    clock.set(chance.choice((-1, 1)) * chance.choice((0.5, 5, 30)))
    try:
        yield
    finally:
        clock.set(0)


STORE_FAULTS = (
    Fault("store: kill -9", Place.STORE, (0.0, 1.5), _killed),
    Fault("store and all nodes: kill -9", Place.STORE, (0.0, 0.5), _everything_killed, True, is_alone=True),
    Fault("store: SIGSTOP", Place.STORE, (0.2, 3.0), _stopped, fits=_is_alone),
    *(_told(*row) for row in _TOLD),
    Fault("store: busy with a script", Place.STORE, (0.3, 3), _busy, fits=_is_alone),
    Fault("store: disk full, it refuses", Place.STORE, (0.5, 3), partial(_disk_full, fsync="everysec")),
    Fault("store: disk full, it ends", Place.STORE, (0.5, 2), partial(_disk_full, fsync="always"), fits=_is_alone),
    Fault("store: the clock jumps and jumps back", Place.STORE, (1.5, 4), _clock, fits=_has_clocks),
)
