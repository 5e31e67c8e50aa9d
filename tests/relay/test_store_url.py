"""The parts of a URL that names several servers."""

import pytest
from redis.asyncio import SSLConnection

from relay.redis import connect
from relay.redis.store_url import parse_several, with_password


def test_the_parts_of_a_sentinels_url() -> None:
    """The user is that of the servers; Sentinels have their own."""
    url = parse_several("redis+sentinel://ann:p%2Fw,@a:1,[::1]:2,b/main?db=3&sentinel_password=s%26w")
    assert url.addresses == (("a", 1), ("::1", 2), ("b", 26379))
    assert url.service == "main"
    assert url.options == {"username": "ann", "password": "p/w,", "db": 3}
    assert url.sentinel_options == {"password": "s&w"}


def test_tls_holds_for_sentinels_and_servers() -> None:
    """A password would otherwise go over the network in plain text to one of the two."""
    url = parse_several("rediss+sentinel://:pw@a/main?ssl_ca_certs=/ca.pem&ssl_check_hostname=no")
    tls = {"ssl": True, "ssl_ca_certs": "/ca.pem", "ssl_check_hostname": False}
    assert url.options == {"password": "pw", **tls}
    assert url.sentinel_options == tls


@pytest.mark.parametrize("path", ["", "/", "/one/two"])
def test_a_sentinels_url_names_a_service(path: str) -> None:
    with pytest.raises(ValueError, match="names one service"):
        parse_several(f"redis+sentinel://a{path}")


def test_the_parts_of_a_clusters_url() -> None:
    """Any members are enough, and a Cluster has one database."""
    url = parse_several("redis+cluster://ann:pw@a:1,b?pubsub=classic")
    assert url.addresses == (("a", 1), ("b", 6379))
    assert url.options == {"username": "ann", "password": "pw"}
    assert url.is_classic
    assert not parse_several("redis+cluster://a/0").is_classic
    with pytest.raises(ValueError, match="one database"):
        parse_several("redis+cluster://a/1")


def test_the_connections_of_a_tls_url_use_tls() -> None:
    """The class of the connection decides it."""
    made = connect.real("rediss+sentinel://a/main")().connection_pool.make_connection()  # type: ignore[no-untyped-call]
    assert type(made).__name__ == "SentinelManagedSSLConnection"
    members = connect.store("rediss+cluster://:pw@a")
    assert isinstance(members, connect.Members)
    made = members.at(("b", 1))().connection_pool.make_connection()  # type: ignore[no-untyped-call]
    assert isinstance(made, SSLConnection)
    assert (made.host, made.port) == ("b", 1)


@pytest.mark.parametrize(
    ("url", "given"),
    [
        ("redis://a:6390/3", "redis://:p%2F%40%3A%25@a:6390/3"),
        ("rediss://ann@a?ssl_ca_certs=/x@y.pem", "rediss://ann:p%2F%40%3A%25@a?ssl_ca_certs=/x@y.pem"),
        ("redis+sentinel://a:1,[::1]:2/main?db=3", "redis+sentinel://:p%2F%40%3A%25@a:1,[::1]:2/main?db=3"),
        ("rediss+cluster://ann@a,b:1?pubsub=classic", "rediss+cluster://ann:p%2F%40%3A%25@a,b:1?pubsub=classic"),
        ("unix:///run/redis.sock", "unix://:p%2F%40%3A%25@/run/redis.sock"),
        ("redis://:own@a", "redis://:own@a"),
        ("redis://ann:own@a", "redis://ann:own@a"),
    ],
)
def test_a_password_of_its_own_may_have_any_characters(url: str, given: str) -> None:
    """A Secret holds a password as a database's operator wrote it; one in the URL takes precedence."""
    assert with_password(url, "p/@:%") == given
