"""Several real servers that belong together: a primary with replicas and Sentinels, and a Cluster."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from redis.exceptions import RedisError
from typing_extensions import override

from relay.store.binary import find_server
from tests.support.ports import free_port
from tests.support.redis_server import RedisProcess
from tests.support.waiting import pause, wait_until

SERVICE = "conclave"
PASSWORD = "of-the-servers"
SENTINEL_PASSWORD = "of-the-sentinels"

SLOTS = 16384

_DOWN_AFTER_MS = 500
_NODE_TIMEOUT_MS = 1000
_FAILOVER_MS = 5000
_QUORUM = 2


class SentinelProcess(RedisProcess):
    """One Sentinel, which watches a primary at a port of 127.0.0.1."""

    def __init__(self, directory: Path, primary: RedisProcess, *, down_after_ms: int) -> None:
        super().__init__(directory, tcp=True, password=SENTINEL_PASSWORD)
        self._down_after_ms = down_after_ms
        self._primary = primary

    @override
    def _command(self) -> list[str]:
        conf = self.directory / "sentinel.conf"  # the Sentinel rewrites it
        if not conf.exists():
            host, port = self._primary.address
            lines = (
                f"port {self.port}",
                "bind 127.0.0.1",
                f"dir {self.directory}",
                f"logfile {self.directory / 'redis.log'}",
                f"requirepass {SENTINEL_PASSWORD}",
                f"sentinel sentinel-pass {SENTINEL_PASSWORD}",
                f"sentinel monitor {SERVICE} {host} {port} {_QUORUM}",
                f"sentinel auth-pass {SERVICE} {PASSWORD}",
                f"sentinel down-after-milliseconds {SERVICE} {self._down_after_ms}",
                f"sentinel failover-timeout {SERVICE} {_FAILOVER_MS}",
            )
            conf.write_text("\n".join(lines) + "\n")
        return [str(find_server()), str(conf), "--sentinel"]


class Sentinels:
    """A primary, two replicas and three Sentinels, which replace a primary soon after it is gone."""

    def __init__(self, servers: list[RedisProcess], sentinels: list[SentinelProcess]) -> None:
        self.servers = servers
        self.sentinels = sentinels

    @property
    def url(self) -> str:
        """The URL for the relay, with all Sentinels."""
        return self.url_of(*self.sentinels)

    @staticmethod
    def url_of(*sentinels: RedisProcess, service: str = SERVICE) -> str:
        """Return the URL that names some of the Sentinels."""
        hosts = ",".join(f"127.0.0.1:{each.port}" for each in sentinels)
        return f"redis+sentinel://:{PASSWORD}@{hosts}/{service}?db=0&sentinel_password={SENTINEL_PASSWORD}"

    @property
    def primary(self) -> RedisProcess:
        """The server that the Sentinels name now."""
        state = self.state()
        return next(server for server in self.servers if server.port == state["port"])

    def state(self) -> dict[str, Any]:
        """Return what the first Sentinel says of the primary."""
        with self.sentinels[0].client() as client:
            return dict(client.sentinel_master(SERVICE))

    def fail_over(self) -> None:
        """Have the Sentinels make a replica the primary, while the old one lives."""
        with self.sentinels[0].client() as client:
            client.execute_command("SENTINEL FAILOVER", SERVICE)

    async def in_step(self) -> None:
        """Wait until the Sentinels know each other and both replicas, and these have all that the primary has."""
        await wait_until(self._is_in_step, timeout=30, what="the replicas have caught up")

    def _is_in_step(self) -> bool:
        for sentinel in self.sentinels:
            with sentinel.client() as client:
                state = client.sentinel_master(SERVICE)
            if state["num-other-sentinels"] != len(self.sentinels) - 1 or state["num-slaves"] != len(self.servers) - 1:
                return False
        with self.primary.client() as client:
            replication = client.info("replication")
        offset = replication["master_repl_offset"]
        replicas = [replication.get(f"slave{number}") for number in range(len(self.servers) - 1)]
        return all(each and each["state"] == "online" and each["offset"] == offset for each in replicas)


@asynccontextmanager
async def sentinels(
    directory: Path, *, durable: bool = False, down_after_ms: int = _DOWN_AFTER_MS
) -> AsyncIterator[Sentinels]:
    """Run a primary, two replicas that are in step with it, and three Sentinels.

    A server that is not `durable` is empty when it comes back.
    """
    async with AsyncExitStack() as stack:
        primary = _server(directory / "primary", durable=durable)
        source = ("--replicaof", "127.0.0.1", str(primary.port))
        replicas = [_server(directory / f"replica{number}", *source, durable=durable) for number in (1, 2)]
        watchers = [
            SentinelProcess(directory / f"sentinel{number}", primary, down_after_ms=down_after_ms)
            for number in range(3)
        ]
        for process in (primary, *replicas, *watchers):
            stack.callback(process.close)
        await primary.start()
        await asyncio.gather(*(process.start() for process in (*replicas, *watchers)))
        topology = Sentinels([primary, *replicas], watchers)
        await topology.in_step()
        yield topology


def _server(directory: Path, *settings: str, durable: bool) -> RedisProcess:
    common = ("--requirepass", PASSWORD, "--masterauth", PASSWORD, "--repl-diskless-sync-delay", "0")
    return RedisProcess(directory, tcp=True, durable=durable, password=PASSWORD, settings=(*common, *settings))


class Member(RedisProcess):
    """A member of a Cluster."""

    def __init__(self, directory: Path) -> None:
        self.bus_port = free_port()
        super().__init__(directory, tcp=True, settings=_settings(self.bus_port))


class Cluster:
    """Some masters, each with an equal part of the slots, and a replica of the last master if there is one."""

    def __init__(self, masters: list[Member], replica: Member | None) -> None:
        self.masters = masters
        self.replica = replica

    @property
    def servers(self) -> list[Member]:
        return [*self.masters, *([self.replica] if self.replica else [])]

    @property
    def url(self) -> str:
        """The URL for the relay, with all masters."""
        return "redis+cluster://" + ",".join(f"127.0.0.1:{each.port}" for each in self.masters)

    def master_of(self, slot: int) -> Member:
        """Return the server that has a slot, as the first one that answers sees it."""
        for first, last, (_, port, *_), *_ in call(self._any(), "CLUSTER", "SLOTS"):
            if first <= slot <= last:
                return next(each for each in self.servers if each.port == port)
        raise AssertionError(f"no server has slot {slot}")

    def _any(self) -> Member:
        """Return a server that answers."""
        for server in self.servers:
            try:
                call(server, "PING")
            except (RedisError, OSError):
                continue
            return server
        raise AssertionError("no server answers")

    async def form(self) -> None:
        """Have the servers meet and take their slots."""
        share = SLOTS // len(self.masters)
        for number, master in enumerate(self.masters):
            last = SLOTS - 1 if master is self.masters[-1] else (number + 1) * share - 1
            call(master, "CLUSTER", "ADDSLOTSRANGE", number * share, last)
            call(master, "CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for server in self.servers[1:]:
            call(server, "CLUSTER", "MEET", "127.0.0.1", self.masters[0].port, self.masters[0].bus_port)
        await wait_until(self._is_met, timeout=30, what="the servers know each other")
        if self.replica is not None:
            call(self.replica, "CLUSTER", "REPLICATE", identity(self.masters[-1]))
        await wait_until(self.is_formed, timeout=30, what="every server says that all is well")

    def _is_met(self) -> bool:
        known = [call(server, "CLUSTER INFO")["cluster_known_nodes"] for server in self.servers]
        return known == [str(len(self.servers))] * len(self.servers)

    def is_formed(self) -> bool:
        """Tell whether every server says that all is well, and the replica has what its master has."""
        states = {call(server, "CLUSTER INFO")["cluster_state"] for server in self.servers}
        linked = self.replica is None or call(self.replica, "INFO", "replication")["master_link_status"] == "up"
        return states == {"ok"} and linked

    async def move(self, slot: int, target: Member, *, rest: float = 0.0) -> None:
        """Move a slot as redis-cli does, one key after the other, with a rest before each step."""
        source = self.master_of(slot)
        self._begin_move(slot, source, target)
        while keys := call(source, "CLUSTER", "GETKEYSINSLOT", slot, 1):
            await pause(rest)
            call(source, "MIGRATE", "127.0.0.1", target.port, keys[0], 0, 5000)
        await pause(rest)
        await self._end_move(slot, source, target, rest)

    @asynccontextmanager
    async def half_moved(self, slot: int, target: Member, key: str) -> AsyncIterator[None]:
        """Move one key of a slot, and the rest at the end."""
        source = self.master_of(slot)
        self._begin_move(slot, source, target)
        assert call(source, "MIGRATE", "127.0.0.1", target.port, key, 0, 5000) == b"OK"
        yield
        for other in call(source, "CLUSTER", "GETKEYSINSLOT", slot, 1000):
            call(source, "MIGRATE", "127.0.0.1", target.port, other, 0, 5000)
        await self._end_move(slot, source, target, 0.0)

    @staticmethod
    def _begin_move(slot: int, source: Member, target: Member) -> None:
        call(target, "CLUSTER", "SETSLOT", slot, "IMPORTING", identity(source))
        call(source, "CLUSTER", "SETSLOT", slot, "MIGRATING", identity(target))

    async def _end_move(self, slot: int, source: Member, target: Member, rest: float) -> None:
        for server in (target, source):
            call(server, "CLUSTER", "SETSLOT", slot, "NODE", identity(target))
            await pause(rest)
        await wait_until(lambda: self.master_of(slot) is target, what="the move is known")

    async def in_step(self) -> None:
        """Wait until the replica has all that its master has."""
        replica = self.replica
        assert replica is not None

        def is_in_step() -> bool:
            master, copy = (call(server, "INFO", "replication") for server in (self.masters[-1], replica))
            return bool(copy["slave_repl_offset"] == master["master_repl_offset"])

        await wait_until(is_in_step, what="the replica has caught up")

    def is_replaced(self, former: Member) -> bool:
        """Tell whether no slot belongs to a former master any more."""
        return all(port != former.port for _, _, (_, port, *_), *_ in call(self._any(), "CLUSTER", "SLOTS"))


def call(server: RedisProcess, *command: str | int | bytes) -> Any:
    """Send one command to a member of a Cluster."""
    with server.client() as client:
        return client.execute_command(*command)


def identity(server: RedisProcess) -> str:
    """Return the name of a server within its Cluster."""
    name = call(server, "CLUSTER", "MYID")
    return name.decode() if isinstance(name, bytes) else str(name)


@asynccontextmanager
async def redis_cluster(directory: Path, masters: int = 3, *, replica: bool = False) -> AsyncIterator[Cluster]:
    """Run a Cluster that works on without a part of its slots."""
    async with AsyncExitStack() as stack:
        servers = [Member(directory / f"member{number}") for number in range(masters + replica)]
        for server in servers:
            stack.callback(server.close)
        await asyncio.gather(*(server.start() for server in servers))
        cluster = Cluster(servers[:masters], servers[masters] if replica else None)
        await cluster.form()
        yield cluster


def _settings(bus_port: int) -> tuple[str, ...]:
    return (
        *("--cluster-enabled", "yes", "--cluster-port", str(bus_port), "--cluster-config-file", "nodes.conf"),
        *("--cluster-node-timeout", str(_NODE_TIMEOUT_MS), "--cluster-require-full-coverage", "no"),
        *("--repl-diskless-sync-delay", "0"),
    )
