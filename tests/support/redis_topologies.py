"""Several real servers that belong together: a primary with replicas and Sentinels."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from typing_extensions import override

from relay.store.binary import find_server
from tests.support.redis_server import RedisProcess
from tests.support.waiting import wait_until

SERVICE = "conclave"
PASSWORD = "of-the-servers"
SENTINEL_PASSWORD = "of-the-sentinels"

_DOWN_AFTER_MS = 500
_FAILOVER_MS = 5000
_QUORUM = 2


class SentinelProcess(RedisProcess):
    """One Sentinel, which watches a primary at a port of 127.0.0.1."""

    def __init__(self, directory: Path, primary: RedisProcess) -> None:
        super().__init__(directory, tcp=True, password=SENTINEL_PASSWORD)
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
                f"sentinel down-after-milliseconds {SERVICE} {_DOWN_AFTER_MS}",
                f"sentinel failover-timeout {SERVICE} {_FAILOVER_MS}",
            )
            conf.write_text("\n".join(lines) + "\n")
        return [str(find_server()), str(conf), "--sentinel"]


class Sentinels:
    """A primary, two replicas and three Sentinels, which replace the primary half a second after it is gone."""

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
async def sentinels(directory: Path) -> AsyncIterator[Sentinels]:
    """Run a primary, two replicas that are in step with it, and three Sentinels."""
    async with AsyncExitStack() as stack:
        primary = _server(directory / "primary")
        replicas = [
            _server(directory / f"replica{number}", "--replicaof", "127.0.0.1", str(primary.port)) for number in (1, 2)
        ]
        watchers = [SentinelProcess(directory / f"sentinel{number}", primary) for number in range(3)]
        for process in (primary, *replicas, *watchers):
            stack.callback(process.close)
        await primary.start()
        await asyncio.gather(*(process.start() for process in (*replicas, *watchers)))
        topology = Sentinels([primary, *replicas], watchers)
        await topology.in_step()
        yield topology


def _server(directory: Path, *settings: str) -> RedisProcess:
    common = ("--requirepass", PASSWORD, "--masterauth", PASSWORD, "--repl-diskless-sync-delay", "0")
    return RedisProcess(directory, tcp=True, durable=False, password=PASSWORD, settings=(*common, *settings))
