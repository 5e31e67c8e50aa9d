"""URLs of a store: one server, the service of Sentinels, or a Cluster.

  redis://[user:password@]host:port/db, rediss://..., unix://...    one server
  redis+sentinel://[user:password@]host:port,host:port/service?db=  the primary of a service, as its Sentinels name it
  redis+cluster://[user:password@]host:port,host:port?pubsub=       a Cluster, found through any of its members

`rediss+sentinel` and `rediss+cluster` are the same with TLS to every server. The options behind `?` are those of
redis-py. The user and the password are those of the servers; Sentinels with users of their own get
`sentinel_username=` and `sentinel_password=`. `pubsub=classic` is for a Cluster whose servers have no sharded
publish/subscribe.
"""

import re
from typing import Any, Literal
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

import msgspec
from redis.asyncio.connection import SSLConnection, parse_url

Topology = Literal["server", "sentinel", "cluster"]
Address = tuple[str, int]

SERVER_SCHEMES = ("redis", "rediss", "unix")
SENTINEL_SCHEMES = ("redis+sentinel", "rediss+sentinel")

CLUSTER_SCHEMES = ("redis+cluster", "rediss+cluster")

_PORTS = {"sentinel": 26379, "cluster": 6379}
_SENTINEL_OPTIONS = {"sentinel_username": "username", "sentinel_password": "password"}
_SHARED_OPTIONS = ("ssl", "socket_keepalive", "socket_type", "socket_read_size")
"""The beginnings of the options that hold for Sentinels, too."""


class StoreUrl(msgspec.Struct, frozen=True):
    """The parts of a URL for several servers."""

    topology: Topology
    addresses: tuple[Address, ...]
    """The Sentinels, or some members of the Cluster."""
    tls: bool
    options: dict[str, Any]
    """The options of a connection to a server, by redis-py's names; without its address."""
    service: str = ""
    is_classic: bool = False
    """True for a Cluster in which messages are published to every member, not only within a shard."""
    sentinel_options: dict[str, Any] = {}
    """The options of a connection to a Sentinel."""


def topology_of(url: str) -> Topology:
    """Return the kind of store that the scheme of a URL names."""
    scheme = url.partition("://")[0]
    if scheme in SENTINEL_SCHEMES:
        return "sentinel"
    return "cluster" if scheme in CLUSTER_SCHEMES else "server"


def with_password(url: str, password: str) -> str:
    """Return a URL with this password, unless it has one. The password is as it is, not as it is written in URLs."""
    scheme, separator, rest = url.partition("://")
    authority = re.split("[/?#]", rest, maxsplit=1)[0]
    user, _, hosts = authority.rpartition("@")
    if ":" in user:
        return url
    return f"{scheme}{separator}{user}:{quote(password, safe='')}@{hosts}{rest.removeprefix(authority)}"


def parse_several(url: str) -> StoreUrl:
    """Return the parts of a URL for several servers.

    Raises:
        ValueError: if it cannot be understood. The text quotes nothing of the URL.
    """
    topology = topology_of(url)
    scheme, _, rest = url.partition("://")
    parts = urlsplit(f"//{rest}")
    credentials, at, hosts = parts.netloc.rpartition("@")
    service = unquote(parts.path.removeprefix("/"))
    if topology == "sentinel" and (not service or "/" in service):
        raise ValueError("a Sentinel's URL names one service")
    if topology == "cluster" and service not in ("", "0"):
        raise ValueError("a Cluster has one database")
    tls = scheme.startswith("rediss+")
    query = dict(parse_qsl(parts.query, strict_parsing=bool(parts.query)))
    own = {name: query.pop(option) for option, name in _SENTINEL_OPTIONS.items() if option in query}
    is_classic = topology == "cluster" and _pubsub(query) == "classic"
    options = _options(f"{'rediss' if tls else 'redis'}://{credentials}{at}-/?{urlencode(query)}")
    shared = {name: value for name, value in options.items() if name.startswith(_SHARED_OPTIONS)}
    return StoreUrl(
        topology=topology,
        addresses=tuple(_address(host, _PORTS[topology]) for host in hosts.split(",")),
        tls=tls,
        options=options,
        service=service,
        is_classic=is_classic,
        sentinel_options={**shared, **own},
    )


def _pubsub(query: dict[str, str]) -> str:
    kind = query.pop("pubsub", "sharded")
    if kind not in ("sharded", "classic"):
        raise ValueError("pubsub is sharded or classic")
    return kind


def _options(url: str) -> dict[str, Any]:
    """Return the options of a URL of one server, by redis-py's names and without the address."""
    options: dict[str, Any] = dict(parse_url(url))
    options.pop("host")
    if options.pop("connection_class", None) is SSLConnection:
        options["ssl"] = True
    return options


def _address(text: str, port: int) -> Address:
    parts = urlsplit(f"//{text}")
    if not parts.hostname:
        raise ValueError("an address without a host")
    return parts.hostname, parts.port or port
