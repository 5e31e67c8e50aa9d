"""A primary and a replica of it, both real, with a link between them that can be stalled and cut."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from redis import Redis

from tests.support.proxy import Proxy
from tests.support.redis_server import RedisProcess
from tests.support.waiting import wait_until


class Pair:
    """`link` carries the replication from the primary. `primary` and `replica` may be killed and paused."""

    def __init__(self, primary: RedisProcess, replica: RedisProcess, link: Proxy) -> None:
        self.primary = primary
        self.replica = replica
        self.link = link

    def topics(self, server: RedisProcess) -> set[bytes]:
        """Return the live topics with a subscriber at a server."""
        with Redis.from_url(server.url) as client:
            return {topic for topic in client.pubsub_channels() if topic.endswith(b":live")}

    def calls(self, server: RedisProcess) -> int:
        """Return the number of scripts that a server has run."""
        return int(self._info(server, "commandstats").get("cmdstat_evalsha", {"calls": 0})["calls"])

    async def in_step(self) -> None:
        """Wait until the replica has all that the primary has."""
        await wait_until(self._is_in_step, timeout=30, what="the replica has caught up")

    def _is_in_step(self) -> bool:
        link, primary = self._info(self.replica, "replication"), self._info(self.primary, "replication")
        same = link["master_replid"] == primary["master_replid"]
        return bool(
            same and link["master_link_status"] == "up" and link["slave_repl_offset"] >= primary["master_repl_offset"]
        )

    def full_copies(self) -> int:
        """Return the number of full copies of the primary."""
        return int(self._info(self.primary, "stats")["sync_full"])

    @staticmethod
    def _info(server: RedisProcess, section: str) -> dict[str, Any]:
        with Redis.from_url(server.url) as client:
            return dict(client.info(section))


@asynccontextmanager
async def replicated(directory: Path) -> AsyncIterator[Pair]:
    """Run a primary and a replica that is in step with it."""
    primary = RedisProcess(
        directory / "primary",
        tcp=True,
        settings=("--repl-diskless-sync-delay", "0", "--repl-backlog-size", "16kb"),
    )
    await primary.start()
    try:
        async with Proxy(*primary.address) as link:
            replica = RedisProcess(
                directory / "replica",
                tcp=True,
                durable=False,
                settings=("--replicaof", "127.0.0.1", str(link.port)),
            )
            try:
                await replica.start()
                pair = Pair(primary, replica, link)
                await pair.in_step()
                yield pair
            finally:
                replica.close()
    finally:
        primary.close()
