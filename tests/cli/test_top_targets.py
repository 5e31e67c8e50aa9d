"""The nodes that a command line names."""

import asyncio
import socket
from typing import Any

import pytest

from cli.dashboard.targets import Finder, InvalidTarget, LocalFinder, Target, parse_target
from tests.support.ports import free_ports


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("127.0.0.1:4391", Target("http", "127.0.0.1", range(4391, 4392))),
        ("127.0.0.1:4391-4393", Target("http", "127.0.0.1", range(4391, 4394))),
        ("top1.nearest.of.app.internal", Target("http", "top1.nearest.of.app.internal", range(4390, 4391))),
        ("[::1]:9464", Target("http", "::1", range(9464, 9465))),
        ("ws://relay.example", Target("http", "relay.example", range(80, 81))),
        ("ws://127.0.0.1:4390/", Target("http", "127.0.0.1", range(4390, 4391))),
        ("http://h:1/metrics", Target("http", "h", range(1, 2))),
        ("wss://relay.example", Target("https", "relay.example", range(443, 444))),
        ("https://relay.example:8443", Target("https", "relay.example", range(8443, 8444))),
    ],
)
def test_addresses_and_urls_are_understood(text: str, target: Target) -> None:
    """Users paste the output of `conclave cluster`, a server's URL, or the name of a service."""
    assert parse_target(text) == target


@pytest.mark.parametrize(
    "text",
    ["", ":1", "h:", "h:0", "h:65536", "h:5-4", "h:1-65535", "ftp://h", "h:1/x", "a b", "u@h", "::1", "h:1-", "[h]:1"],
)
def test_anything_else_is_refused(text: str) -> None:
    """The command does not guess."""
    with pytest.raises(InvalidTarget, match="invalid"):
        parse_target(text)


class Names:
    """A name server."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.known: dict[str, list[str]] = {}
        self.stalls = False
        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", self._answer)

    async def _answer(self, host: str, _: object, **__: Any) -> list[tuple[Any, ...]]:
        if self.stalls:
            await asyncio.Event().wait()
        if host not in self.known:
            raise socket.gaierror(-2, "Name or service not known")
        return [
            (socket.AF_INET6 if ":" in ip else socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, 0))
            for ip in self.known[host]
        ]


@pytest.fixture
async def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    return Names(monkeypatch)


async def found(finder: Finder) -> list[str]:
    return [address.name for address in await finder.find()]


async def test_a_name_with_several_addresses_means_a_node_at_each(names: Names) -> None:
    """A headless service is an example. Its nodes come and go, so the name is looked up every time."""
    names.known["nodes"] = ["10.0.0.2", "10.0.0.1"]
    finder = Finder([parse_target("nodes:9464")])
    assert await found(finder) == ["10.0.0.1:9464", "10.0.0.2:9464"]
    names.known["nodes"] = ["10.0.0.3", "10.0.0.2"]
    assert await found(finder) == ["10.0.0.2:9464", "10.0.0.3:9464"]
    names.known["nodes"] = ["10.0.0.3"]
    assert await found(finder) == ["nodes:9464"], "a single one is called what its user calls it"


async def test_a_name_with_addresses_of_both_families_is_one_node(names: Names) -> None:
    """`localhost` is the most common example."""
    names.known |= {"localhost": ["::1", "127.0.0.1"], "fly": ["fdaa::2", "fdaa::1"]}
    assert await found(Finder([parse_target("localhost:1")])) == ["localhost:1"]
    assert await found(Finder([parse_target("fly:1")])) == ["[fdaa::1]:1", "[fdaa::2]:1"]


async def test_a_node_named_twice_is_asked_once(names: Names) -> None:
    """Otherwise the totals would be wrong."""
    names.known["127.0.0.1"] = ["127.0.0.1"]
    finder = Finder([parse_target("127.0.0.1:1-2"), parse_target("127.0.0.1:2-3")])
    assert await found(finder) == ["127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"]


async def test_a_failed_lookup_is_reported_and_keeps_the_last_addresses(names: Names) -> None:
    """The name server may suffer from the same outage as the nodes."""
    names.known["nodes"] = ["10.0.0.1"]
    finder = Finder([parse_target("nodes:1"), parse_target("typo:1")], deadline=0.2)
    assert await found(finder) == ["nodes:1"]
    assert finder.problems == ["typo: Name or service not known"]
    names.stalls = True
    assert await found(finder) == ["nodes:1"]
    assert sorted(finder.problems) == [
        "nodes: the name cannot be looked up",
        "typo: the name cannot be looked up",
    ]


async def test_without_addresses_the_nodes_of_a_local_cluster_are_found() -> None:
    """A node that has died since is still listed. Without a cluster, the port of a single relay is used."""
    first = free_ports(3)
    finder = LocalFinder(range(first + 1, first + 3), first)
    assert [address.port for address in await finder.find()] == [first]
    with socket.create_server(("127.0.0.1", first + 2)):
        assert [address.port for address in await finder.find()] == [first + 2]
    assert [address.name for address in await finder.find()] == [f"127.0.0.1:{first + 2}"]
