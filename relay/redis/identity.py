"""The identity of the server behind a connection: the cluster whose data it holds, its run, and its role.

Every new connection is asked for it before it is used. An address may lead to another server than before: an empty one,
a replica, the primary of another cluster. Managed services hide some of the fields; what is hidden is unknown, and is
not judged.
"""

from collections.abc import Callable

import msgspec
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ResponseError

from relay.model.errors import StoreUnavailable


class StoreIdentity(msgspec.Struct, frozen=True):
    """The identity that a server reports. A field that it does not report is empty."""

    cluster: str | None
    """The id of the cluster; None if the server holds none."""
    run_id: str = ""
    """The run of the server process: a restart and a failover change it."""
    replication_id: str = ""
    """The history of writes that the server continues: a replica has that of its primary."""
    role: str = ""
    version: tuple[int, ...] = ()

    @property
    def is_replica(self) -> bool:
        return self.role == "slave"


class ClusterCheck:
    """The check that Redis holds this node's cluster. The data of another one must not be taken for it."""

    def __init__(self, key: str) -> None:
        """`key` holds the id of the cluster."""
        self.key = key
        self.expected = ""
        """The id of this node's cluster; empty until the node knows it, and everything passes."""
        self._on_other: list[Callable[[str | None], None]] = []

    def on_other(self, callback: Callable[[str | None], None]) -> None:
        """Have `callback` called with the id that Redis holds instead, or None, each time that a check fails."""
        self._on_other.append(callback)

    def differs(self, found: str | None) -> bool:
        """Tell whether an id is known not to be that of this node's cluster."""
        return bool(self.expected) and found != self.expected

    def check(self, found: str | None) -> None:
        """Compare the id that the primary holds. Raises: StoreUnavailable, after the callbacks."""
        if self.differs(found):
            for callback in self._on_other:
                callback(found)
            raise StoreUnavailable("Redis holds another cluster" if found else "Redis holds no cluster id any more")


async def read_identity(connection: AbstractConnection, cluster_key: str) -> StoreIdentity:
    """Ask a new connection for the identity of its server, in one round trip. Without a key no cluster id is read.

    Raises the errors of redis-py, if the cluster id cannot be read.
    """
    if cluster_key:
        await connection.send_command("GET", cluster_key)
    await connection.send_command("INFO", "server")
    await connection.send_command("INFO", "replication")
    cluster = await connection.read_response() if cluster_key else None
    server, replication = await _info(connection), await _info(connection)
    return StoreIdentity(
        cluster=None if cluster is None else bytes(cluster).decode(),
        run_id=server.get("run_id", ""),
        replication_id=replication.get("master_replid", ""),
        role=replication.get("role", ""),
        version=_version(server.get("redis_version", "")),
    )


async def _info(connection: AbstractConnection) -> dict[str, str]:
    """Read a reply to INFO; empty if the server or its permissions do not allow it."""
    try:
        return parse_info(await connection.read_response())
    except ResponseError:
        return {}


def parse_info(text: bytes) -> dict[str, str]:
    """Return the fields of a reply to INFO."""
    rows = (line.partition(":") for line in bytes(text).decode(errors="replace").splitlines())
    return {name: value for name, colon, value in rows if colon}


def _version(text: str) -> tuple[int, ...]:
    parts = text.split(".")
    return tuple(int(part) for part in parts) if all(part.isdecimal() for part in parts) else ()
