"""New connections: each is asked for the identity of its server before it is used."""

import asyncio
import secrets
from collections.abc import Callable, Sequence

from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError as LostConnection
from redis.exceptions import InvalidResponse

from relay.model.errors import StoreRefused, StoreUnavailable
from relay.redis.failures import CONNECTION_ERRORS, failed_connection
from relay.redis.identity import ClusterCheck, StoreIdentity, read_identity
from relay.redis.scripts import Script


class Connector:
    """Opens connections to one address, which may lead to another server each time."""

    def __init__(
        self, make: Callable[..., Redis], *, timeout: float, cluster: ClusterCheck | None, replica: bool
    ) -> None:
        """`make(**options)` builds a redis-py client. `timeout` bounds each attempt, in seconds.

        `cluster` checks the data that a connection leads to, if given. `replica` allows replicas.
        """
        self._pool = make(socket_timeout=None, socket_connect_timeout=timeout).connection_pool
        self._timeout = timeout
        self.cluster = cluster or ClusterCheck("")
        self._is_replica = replica

    async def open(self, load: Sequence[Script] = ()) -> tuple[AbstractConnection, StoreIdentity]:
        """Open a connection without a read time-out, and load scripts. `check` is left to the caller.

        Raises: StoreUnavailable.
        """
        connection: AbstractConnection = self._pool.make_connection()  # type: ignore[no-untyped-call]
        try:
            async with asyncio.timeout(self._timeout):
                await connection.connect()  # type: ignore[no-untyped-call]
                identity = await self._prepare(connection, load)
        except BaseException as error:
            await connection.disconnect(nowait=True)
            if isinstance(error, CONNECTION_ERRORS):
                raise failed_connection(error) from error
            raise
        return connection, identity

    async def _prepare(self, connection: AbstractConnection, load: Sequence[Script]) -> StoreIdentity:
        """Read the identity of the server, and load scripts. Every connection comes through here."""
        identity = await read_identity(connection, self.cluster.key)
        if identity.is_replica and not self._is_replica:
            raise StoreRefused("READONLY", f"Redis at {_address(connection)} is a replica")
        for script in load:
            await connection.send_command("SCRIPT", "LOAD", script.text)
        last = secrets.token_bytes(8)
        await connection.send_command("ECHO", last)
        for _ in load:
            await connection.read_response()
        if await connection.read_response() != last:
            raise InvalidResponse("replies that nobody asked for")
        if await connection.can_read():
            raise LostConnection("Connection closed by server.")
        return identity

    def check(self, cluster: str | None) -> None:
        """Compare the id of a cluster that Redis holds with that of this node. Raises: StoreUnavailable."""
        if not self._is_replica:
            self.cluster.check(cluster)
        elif cluster is not None and self.cluster.differs(cluster):  # a replica may be behind, also with that
            raise StoreUnavailable("it holds another cluster")


def _address(connection: AbstractConnection) -> str:
    """Return the address of a connection's server, which contains no password."""
    host, port = getattr(connection, "host", None), getattr(connection, "port", None)
    return f"{host}:{port}" if host else str(getattr(connection, "path", "its address"))
