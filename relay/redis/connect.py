"""Factories of redis-py clients: one set of options for every client, real or in process."""

from collections.abc import Callable
from typing import Any

from redis.asyncio import Connection, ConnectionPool, Redis, SSLConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from relay.redis.sentinel import Sentinels
from relay.redis.store_url import Address, StoreUrl, parse_several, topology_of

Make = Callable[..., Redis]

_OPTIONS: dict[str, Any] = {
    "protocol": 2,  # RESP3 formats a debug string for every published message
    "retry": Retry(NoBackoff(), 0),  # relay.redis.client decides what an outage means
    "decode_responses": False,
}

_SENTINELS_SECONDS = 2.0
"""The time in which the Sentinels are asked, where a caller gives none."""


def real(url: str) -> Make:
    """Return a factory of clients for the URL of a server, or for that of the Sentinels of a primary."""
    if topology_of(url) == "sentinel":
        return _by_sentinels(parse_several(url))

    def make(**options: Any) -> Redis:
        return Redis.from_url(url, **_OPTIONS, **options)

    return make


def _by_sentinels(url: StoreUrl) -> Make:
    def make(socket_connect_timeout: float | None = None, **options: Any) -> Redis:
        timeout = _SENTINELS_SECONDS if socket_connect_timeout is None else socket_connect_timeout
        sentinels = Sentinels(url, timeout=timeout, **_OPTIONS)
        options |= {**_OPTIONS, "socket_connect_timeout": timeout, **url.options}
        primary: Redis = sentinels.master_for(url.service, **options)
        return primary

    return make


class Members:
    """The members of a Cluster: some of their addresses, and factories of clients for any of them."""

    def __init__(self, url: StoreUrl) -> None:
        self.seeds = url.addresses
        self.sharded = not url.is_classic
        """True if messages are published within the shard of their channel only."""
        self._options = dict(url.options)
        self._kind = SSLConnection if self._options.pop("ssl", False) else Connection

    def at(self, address: Address) -> Make:
        """Return a factory of clients for the member at an address."""
        host, port = address

        def make(**options: Any) -> Redis:
            pool = ConnectionPool(self._kind, host=host, port=port, **_OPTIONS, **{**options, **self._options})
            return Redis(connection_pool=pool)

        return make


def store(url: str) -> Make | Members:
    """Return how to make clients for the store that a URL names."""
    return Members(parse_several(url)) if topology_of(url) == "cluster" else real(url)


def is_usable(url: str) -> bool:
    """Tell whether clients can be made for a URL with all of its options. Nothing is connected."""
    try:
        found = store(url)
        make = found.at(found.seeds[0]) if isinstance(found, Members) else found
        make().connection_pool.make_connection()  # type: ignore[no-untyped-call]  # this uses the options
    except Exception:  # noqa: BLE001 - of any type, depending on the option; the text may quote a part of a password
        return False
    return True


def with_replica(url: str, read_url: str | None) -> tuple[Make | Members, Make | None]:
    """Return the factories for a store and for its replica, if there is one."""
    return store(url), None if read_url is None else real(read_url)


def in_process() -> Make:
    """Return a factory of clients that share one new, empty server inside this process.

    Raises:
        ImportError: if fakeredis is not installed.
    """
    from fakeredis import FakeAsyncRedis, FakeServer  # noqa: PLC0415 - only where it is asked for

    server = FakeServer(server_type="redis", version=(7,))

    def make(**options: Any) -> Redis:
        client: Redis = FakeAsyncRedis(server=server, protocol=2, **options)
        return client

    return make
