"""A node's configuration: parsed once, frozen."""

import os
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import msgspec

from conclave import urls
from conclave.errors import ConfigError, InvalidUrl
from relay.redis import connect, store_url
from relay.redis.channel_log import Retention
from relay.redis.directory import Registration
from relay.redis.store_url import CLUSTER_SCHEMES, SENTINEL_SCHEMES, SERVER_SCHEMES, topology_of
from relay.services.server_admins import ServerAdmins

DEFAULT_BIND = "0.0.0.0:4390"
DEFAULT_MAX_MESSAGE_BYTES = 1024 * 1024
DEFAULT_KEY_PREFIX = "conclave"
DEFAULT_DRAIN_DELAY, DEFAULT_DRAIN_SECONDS = 5.0, 20.0
DEFAULT_MAX_GATHER_MS = 10.0

_RETENTION_MS = 7 * 24 * 3600 * 1000
_RETENTION_ROWS = 1_000_000
_WORKERS = range(1, 257)
_LONGEST_DRAIN_SECONDS = 3600
_LONGEST_GATHER_MS = 1000
_MESSAGE_BYTES = range(1024, 2560 * 1024 + 1)
"""Beyond 2.5 MiB an event could exceed the 16 MiB that one v2 message may have: as JSON, a body may be six times as
long as it was in a v1 frame. A page of v1 history is below that, too."""

PresencePolicy = Literal["everyone", "shared"]
"""The sessions that `who` without a channel lists: all, or those of users who share a channel with the caller."""

NO_STORE = (
    "`serve` requires `--data-dir <path>` for persistent storage, `--redis-url <url>` to join a cluster, "
    "or `--ephemeral` for a throwaway in-memory store"
)
NO_SHARING = (
    "`--ephemeral` keeps everything in one process and cannot have more than one worker: "
    "give `--data-dir <path>` or `--redis-url <url>`"
)
TWO_STORES = "`--data-dir`, `--redis-url` and `--ephemeral` exclude each other: give exactly one"


class RedisUrl(msgspec.Struct, frozen=True):
    """An existing Redis: a server, one behind Sentinels, or a Cluster (relay.redis.store_url).

    `read_url` is a read replica of it.
    """

    url: str
    read_url: str | None = None


class DataDir(msgspec.Struct, frozen=True):
    """A private server that keeps its data in this directory."""

    path: Path


class Ephemeral(msgspec.Struct, frozen=True):
    """A store in this process's memory, lost at its end."""


Store = RedisUrl | DataDir | Ephemeral


class NodeConfig(msgspec.Struct, frozen=True):
    """The settings of a node."""

    host: str
    port: int
    store: Store
    admins: ServerAdmins
    max_message_bytes: int = DEFAULT_MAX_MESSAGE_BYTES
    key_prefix: str = DEFAULT_KEY_PREFIX
    registration: Registration = "open"
    presence: PresencePolicy = "everyone"
    origins: frozenset[str] = frozenset()
    """The origins of the URLs that clients reach the relay by; empty if they are not configured."""
    redis_timeout: float = 2.0
    handshake_seconds: float = 10.0
    idle_seconds: float = 60.0
    workers: int = 1
    """The number of processes that serve the port."""
    metrics_address: tuple[str, int] | None = None
    """The address of the metrics' own port; None serves them at the port for clients."""
    drain_delay: float = 0.0
    """The seconds for which a stopping node keeps serving while it reports that it is not ready."""
    drain_seconds: float = 0.0
    """The seconds over which it then closes its sessions."""
    max_gather_seconds: float = DEFAULT_MAX_GATHER_MS / 1000
    """The longest time for which a busy node gathers the events of its sessions."""

    @property
    def retention(self) -> Retention:
        return Retention(ms=_RETENTION_MS, rows=_RETENTION_ROWS, group_bytes=self.max_message_bytes)

    @property
    def outbox_bytes(self) -> int:
        """The limit of one session's outbox: the largest page of history, and live messages behind it.

        A body that is six times as long in JSON fits, too.
        """
        return max(4 * 1024 * 1024 + 4 * self.max_message_bytes, 1024 * 1024 + 6 * self.max_message_bytes)


def parse_config(
    *,
    bind: str = DEFAULT_BIND,
    redis_url: str | None = None,
    redis_read_url: str | None = None,
    redis_password: str | None = None,
    data_dir: Path | None = None,
    ephemeral: bool = False,
    admins: Iterable[str] = (),
    max_message_bytes: int = DEFAULT_MAX_MESSAGE_BYTES,
    key_prefix: str = DEFAULT_KEY_PREFIX,
    registration: Registration = "open",
    presence: PresencePolicy = "everyone",
    public_urls: Iterable[str] = (),
    workers: str = "1",
    metrics_bind: str | None = None,
    drain_delay: float | None = None,
    drain_seconds: float | None = None,
    max_gather_ms: float = DEFAULT_MAX_GATHER_MS,
) -> NodeConfig:
    """Return the configuration that the command line gives. `redis_password` is for URLs without one.

    Raises:
        ConfigError: a value is invalid; the text says what was expected.
    """
    host, port = _parse_address(bind)
    if max_message_bytes not in _MESSAGE_BYTES:
        raise ConfigError(
            f"invalid message limit {max_message_bytes} "
            f"(expected {_MESSAGE_BYTES.start} to {_MESSAGE_BYTES.stop - 1} bytes)"
        )
    if redis_password and redis_url is not None:
        redis_url = store_url.with_password(redis_url, redis_password)
        redis_read_url = None if redis_read_url is None else store_url.with_password(redis_read_url, redis_password)
    store = _parse_store(redis_url, redis_read_url, data_dir, ephemeral=ephemeral)
    return NodeConfig(
        host=host,
        port=port,
        store=store,
        admins=ServerAdmins.parse(admins),
        max_message_bytes=max_message_bytes,
        key_prefix=key_prefix,
        registration=registration,
        presence=presence,
        origins=_parse_origins(public_urls),
        workers=_parse_workers(workers, store),
        metrics_address=None if metrics_bind is None else _parse_address(metrics_bind),
        drain_delay=_parse_drain(drain_delay, store, DEFAULT_DRAIN_DELAY),
        drain_seconds=_parse_drain(drain_seconds, store, DEFAULT_DRAIN_SECONDS),
        max_gather_seconds=_parse_gather(max_gather_ms),
    )


def _parse_origins(public_urls: Iterable[str]) -> frozenset[str]:
    try:
        several = [part.strip() for text in public_urls for part in text.split(",")]
        return frozenset(urls.origin(url) for url in several if url)
    except InvalidUrl as error:
        raise ConfigError(f"invalid public URL: {error}") from None


def _parse_address(bind: str) -> tuple[str, int]:
    match = re.fullmatch(r"(?:\[(?P<v6>[0-9a-fA-F:.%\w]+)\]|(?P<host>[^:\[\]]*)):(?P<port>[0-9]{1,5})", bind)
    if match is None or int(match["port"]) > 65_535:  # noqa: PLR2004 - the highest port
        raise ConfigError(f"invalid address `{bind}` (expected HOST:PORT, for example 127.0.0.1:4390 or [::1]:4390)")
    return match["v6"] or match["host"] or "0.0.0.0", int(match["port"])  # noqa: S104 - what an empty host means


def _parse_store(redis_url: str | None, read_url: str | None, data_dir: Path | None, *, ephemeral: bool) -> Store:
    if redis_url is not None:
        _check_redis_url("--redis-url", redis_url, (*SERVER_SCHEMES, *SENTINEL_SCHEMES, *CLUSTER_SCHEMES))
    if read_url is not None:
        _check_redis_url("--redis-read-url", read_url, SERVER_SCHEMES)
    if read_url is not None and redis_url is not None and topology_of(redis_url) == "cluster":
        raise ConfigError("`--redis-read-url` is for a replica of one server, and `--redis-url` names a Cluster")
    given: list[Store] = []
    if redis_url is not None:
        given.append(RedisUrl(redis_url, read_url))
    elif read_url is not None:
        raise ConfigError("`--redis-read-url` is for a replica of `--redis-url`")
    if data_dir is not None:
        given.append(DataDir(data_dir))
    if ephemeral:
        given.append(Ephemeral())
    if len(given) != 1:
        raise ConfigError(TWO_STORES if given else NO_STORE)
    return given[0]


def _check_redis_url(flag: str, url: str, schemes: tuple[str, ...]) -> None:
    """Refuse an unusable URL without quoting it: it may hold a password."""
    if url.partition("://")[0] not in schemes:
        *others, last = (f"{scheme}://" for scheme in schemes)
        raise ConfigError(f"invalid Redis URL in `{flag}` (expected {', '.join(others)} or {last})")
    if not connect.is_usable(url):
        raise ConfigError(
            f"invalid Redis URL in `{flag}`: its address or one of its options cannot be understood "
            "(in a password, write / as %2F, ? as %3F, # as %23 and @ as %40)"
        )


def _parse_workers(text: str, store: Store) -> int:
    in_one_process = isinstance(store, Ephemeral)
    if text == "auto":
        return 1 if in_one_process else min(_cores(), _WORKERS.stop - 1)
    if not re.fullmatch("[0-9]{1,3}", text) or int(text) not in _WORKERS:
        raise ConfigError(f"invalid number of workers `{text}` (expected 1 to {_WORKERS.stop - 1}, or auto)")
    if int(text) > 1 and in_one_process:
        raise ConfigError(NO_SHARING)
    return int(text)


def _parse_drain(seconds: float | None, store: Store, default: float) -> float:
    """The default without a cluster is 0: the sessions of a single relay have no other node to move to."""
    if seconds is None:
        return default if isinstance(store, RedisUrl) else 0.0
    if not 0 <= seconds <= _LONGEST_DRAIN_SECONDS:
        raise ConfigError(f"invalid drain of {seconds:g} seconds (expected 0 to {_LONGEST_DRAIN_SECONDS})")
    return seconds


def _parse_gather(milliseconds: float) -> float:
    if not 0 <= milliseconds <= _LONGEST_GATHER_MS:
        raise ConfigError(f"invalid time of {milliseconds:g} ms to gather events (expected 0 to {_LONGEST_GATHER_MS})")
    return milliseconds / 1000


def _cores() -> int:
    """Return how many cores this process may use. A container's limit of CPU time is not considered."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
