"""The settings of a node on the command line."""

import os
from pathlib import Path
from typing import Any

import pytest

from conclave.errors import ConfigError
from relay.app.config import (
    DEFAULT_MAX_MESSAGE_BYTES,
    NO_SHARING,
    NO_STORE,
    TWO_STORES,
    DataDir,
    Ephemeral,
    RedisUrl,
    Store,
    parse_config,
)
from relay.redis.keys import Keys

DIRECTORY = Path("/var/lib/conclave")


@pytest.mark.parametrize(
    ("given", "store"),
    [
        ({"redis_url": "redis://localhost:6379/0"}, RedisUrl("redis://localhost:6379/0")),
        ({"redis_url": "rediss://user:secret@example.org"}, RedisUrl("rediss://user:secret@example.org")),
        ({"redis_url": "unix:///run/redis.sock"}, RedisUrl("unix:///run/redis.sock")),
        (
            {"redis_url": "redis://far", "redis_read_url": "rediss://near"},
            RedisUrl("redis://far", read_url="rediss://near"),
        ),
        ({"redis_url": "redis+sentinel://a,b:1/main"}, RedisUrl("redis+sentinel://a,b:1/main")),
        ({"redis_url": "redis+cluster://a,b:1"}, RedisUrl("redis+cluster://a,b:1")),
        ({"data_dir": DIRECTORY}, DataDir(DIRECTORY)),
        ({"ephemeral": True}, Ephemeral()),
    ],
)
def test_each_store_is_understood(given: dict[str, Any], store: Store) -> None:
    """The three ways to run a node."""
    assert parse_config(**given).store == store


def test_a_node_needs_a_store() -> None:
    """No operator loses history by default."""
    with pytest.raises(ConfigError) as caught:
        parse_config()
    assert str(caught.value) == NO_STORE


@pytest.mark.parametrize(
    "given",
    [
        {"redis_url": "redis://a", "ephemeral": True},
        {"redis_url": "redis://a", "data_dir": DIRECTORY},
        {"data_dir": DIRECTORY, "ephemeral": True},
        {"redis_url": "redis://a", "data_dir": DIRECTORY, "ephemeral": True},
    ],
)
def test_stores_exclude_each_other(given: dict[str, Any]) -> None:
    """Whichever we took, the operator might have meant the other one."""
    with pytest.raises(ConfigError) as caught:
        parse_config(**given)
    assert str(caught.value) == TWO_STORES


@pytest.mark.parametrize("url", ["", "localhost:6379", "http://localhost", "REDIS://a"])
def test_a_url_of_something_else_is_refused(url: str) -> None:
    """The text lists the valid ones, and repeats no password."""
    every = r"expected redis://, rediss://, unix://, redis\+sentinel://, .*redis\+cluster:// or rediss\+cluster://"
    with pytest.raises(ConfigError, match=every) as caught:
        parse_config(redis_url=url)
    with pytest.raises(ConfigError, match="expected redis://, rediss:// or unix://"):
        parse_config(redis_url="redis://a", redis_read_url=url)
    assert "localhost" not in str(caught.value)


def test_a_read_replica_is_one_server() -> None:
    """Of several behind Sentinels, the one that is checked might not be the one that delivers."""
    with pytest.raises(ConfigError, match="expected redis://, rediss:// or unix://"):
        parse_config(redis_url="redis+sentinel://a/main", redis_read_url="redis+sentinel://a/main")
    with pytest.raises(ConfigError, match="`--redis-url` names a Cluster"):
        parse_config(redis_url="redis+cluster://a", redis_read_url="redis://a")


@pytest.mark.parametrize(
    "url",
    [
        "redis://:hunter2/x@127.0.0.1:6379/0",
        "redis://:hunter2@[::1",
        "redis://:hunter2@a:65536",
        "redis://:hunter2@a?foo=x",
        "redis://:hunter2@a?timeout=2",
        "rediss://:hunter2@a?socket_timeout=soon",
        "rediss://:hunter2@a?retry=x",
        "redis://:hunter2@a?protocol=9",
        "unix://:hunter2@/run/redis.sock?foo=x",
    ],
)
def test_a_url_that_cannot_be_read_is_refused_without_its_password(url: str) -> None:
    """A slash in a password ends the address, and what comes before it would be quoted as a port that is no number."""
    with pytest.raises(ConfigError, match="invalid Redis URL in `--redis-url`: its address") as caught:
        parse_config(redis_url=url)
    with pytest.raises(ConfigError, match="invalid Redis URL in `--redis-read-url`: its address") as near:
        parse_config(redis_url="redis://a", redis_read_url=url)
    for error in (caught.value, near.value):
        assert "hunter2" not in str(error)
        assert error.__cause__ is None
        assert error.__context__ is None


@pytest.mark.parametrize(
    "url",
    [
        "redis+sentinel://:hunter2@a:1",
        "redis+sentinel://:hunter2@a:1/",
        "redis+sentinel://:hunter2@a:1/one/two",
        "redis+sentinel://:hunter2@/main",
        "redis+sentinel://:hunter2@a,/main",
        "redis+sentinel://:hunter2@a:x/main",
        "redis+sentinel://:hunter2@a:1/main?foo=x",
        "redis+sentinel://:hunter2@a:1/main?db=one",
        "redis+sentinel://a:1/main?ssl_ca_certs=/hunter2.pem",
        "rediss+sentinel://:hunter2/x@a:1/main",
        "redis+cluster://:hunter2@a:1/1",
        "redis+cluster://:hunter2@a:x",
        "redis+cluster://:hunter2@",
        "redis+cluster://:hunter2@a:1?pubsub=none",
        "redis+cluster://:hunter2@a:1?foo=x",
    ],
)
def test_a_url_of_several_servers_that_cannot_be_read_is_refused(url: str) -> None:
    """Neither the password nor a part of it is repeated."""
    with pytest.raises(ConfigError, match="invalid Redis URL in `--redis-url`: its address") as caught:
        parse_config(redis_url=url)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "redis://:p%2Fw@a:1/3?socket_keepalive=yes&health_check_interval=5",
        "rediss://a?ssl_cert_reqs=none&ssl_ca_certs=/nowhere.pem",
        "unix:///run/redis.sock?db=2",
        "redis+sentinel://user:p%2Fw@a:1,[::1]:2,b/main?db=3&sentinel_username=x&sentinel_password=p%2Fw",
        "rediss+sentinel://a/main?ssl_ca_certs=/nowhere.pem",
        "redis+cluster://user:p%2Fw@a:1,[::1]:2,b/?socket_keepalive=yes&pubsub=classic",
        "rediss+cluster://a?ssl_ca_certs=/nowhere.pem&pubsub=sharded",
    ],
)
def test_a_url_with_options_is_taken(url: str) -> None:
    """All options that redis-py knows; files that they name are opened at the connection."""
    assert parse_config(redis_url=url).store == RedisUrl(url)


@pytest.mark.parametrize("given", [{"data_dir": DIRECTORY}, {"ephemeral": True}])
def test_a_replica_is_one_of_a_redis(given: dict[str, Any]) -> None:
    """Beside any other store it would be read from in vain."""
    with pytest.raises(ConfigError, match="`--redis-read-url` is for a replica of `--redis-url`"):
        parse_config(redis_read_url="redis://near", **given)


@pytest.mark.parametrize(
    ("bind", "host", "port"),
    [
        ("127.0.0.1:4390", "127.0.0.1", 4390),
        ("localhost:0", "localhost", 0),
        (":8080", "0.0.0.0", 8080),  # noqa: S104 - what an empty host means
        ("[::1]:65535", "::1", 65_535),
        ("[fe80::1%eth0]:1", "fe80::1%eth0", 1),
    ],
)
def test_an_address_is_a_host_and_a_port(bind: str, host: str, port: int) -> None:
    """IPv6 goes into brackets, an empty host means every interface."""
    config = parse_config(bind=bind, ephemeral=True)
    assert (config.host, config.port) == (host, port)


@pytest.mark.parametrize("bind", ["", "localhost", "4390", "a:b", "::1:80", "[::1]", "a:65536", "a:-1", "a:80 ", "a:٣"])
def test_anything_else_is_no_address(bind: str) -> None:
    """Refused at the start, with an example, not by a traceback of the event loop."""
    with pytest.raises(ConfigError, match="expected HOST:PORT"):
        parse_config(bind=bind, ephemeral=True)


@pytest.mark.parametrize(("text", "workers"), [("1", 1), ("4", 4), ("256", 256)])
def test_a_number_of_workers_is_taken(text: str, workers: int) -> None:
    """With a store that processes can share."""
    assert parse_config(redis_url="redis://a", workers=text).workers == workers
    assert parse_config(data_dir=DIRECTORY, workers=text).workers == workers


def test_automatic_workers_are_the_cores_that_may_be_used() -> None:
    """An ephemeral node gets one worker and no error: an image may set `auto` for everything that runs from it."""
    assert parse_config(redis_url="redis://a", workers="auto").workers == len(os.sched_getaffinity(0))
    assert parse_config(ephemeral=True, workers="auto").workers == 1


@pytest.mark.parametrize("text", ["", "0", "-1", "257", "two", "1.5", "٣"])
def test_another_number_of_workers_is_refused(text: str) -> None:
    """An operator who asked for another number must not get one process."""
    with pytest.raises(ConfigError, match="invalid number of workers"):
        parse_config(redis_url="redis://a", workers=text)


def test_what_is_in_one_process_has_one_worker() -> None:
    """Two of them would be two servers behind one port."""
    with pytest.raises(ConfigError) as caught:
        parse_config(ephemeral=True, workers="2")
    assert str(caught.value) == NO_SHARING


@pytest.mark.parametrize("size", [1024, DEFAULT_MAX_MESSAGE_BYTES, 2560 * 1024])
def test_a_message_limit_within_reason_is_taken(size: int) -> None:
    """The bounds themselves included."""
    assert parse_config(ephemeral=True, max_message_bytes=size).max_message_bytes == size


@pytest.mark.parametrize("size", [-1, 0, 1023, 2560 * 1024 + 1])
def test_a_message_limit_beyond_reason_is_refused(size: int) -> None:
    """Beyond 2.5 MiB, an event might not fit the largest message that clients take."""
    with pytest.raises(ConfigError, match="invalid message limit"):
        parse_config(ephemeral=True, max_message_bytes=size)


@pytest.mark.parametrize("size", [1024, DEFAULT_MAX_MESSAGE_BYTES, 2560 * 1024])
def test_the_largest_page_of_history_fits_a_frame_and_an_outbox(size: int) -> None:
    """A reader that asks for history must not be dropped for getting it: 4 MiB and one millisecond's messages."""
    config = parse_config(ephemeral=True, max_message_bytes=size)
    page = 4 * 1024 * 1024 + config.retention.group_bytes
    assert page < 16 * 1024 * 1024
    assert page + config.max_message_bytes < config.outbox_bytes
    escaped = 6 * config.max_message_bytes + 64 * 1024
    assert escaped < min(16 * 1024 * 1024, config.outbox_bytes)


@pytest.mark.parametrize("prefix", ["", "a b", "a{b}", "é", "x" * 65, "a\n"])
def test_a_prefix_that_would_break_the_keys_is_refused(prefix: str) -> None:
    """Braces mark hash slots; the rest must survive every tool that operators use."""
    with pytest.raises(ConfigError, match="invalid key prefix"):
        Keys(prefix)
