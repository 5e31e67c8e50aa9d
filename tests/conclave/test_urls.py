"""When two spellings mean one server, and what can be dialled."""

import pytest

from conclave.errors import InvalidUrl
from conclave.urls import check_url, normalise, origin, same_server


@pytest.mark.parametrize(
    "spelling",
    [
        "wss://chat.example",
        "wss://chat.example/",
        "WSS://Chat.Example",
        "wss://chat.example:443",
        "wss://CHAT.example:443/",
    ],
)
def test_spellings_of_one_server_are_the_same(spelling: str) -> None:
    """Registrations and permissions must not split over a slash."""
    assert normalise(spelling) == "wss://chat.example"
    assert same_server(spelling, "wss://chat.example")


@pytest.mark.parametrize(
    "other",
    [
        "ws://chat.example",
        "wss://chat.example:4390",
        "wss://chat.example/team",
        "wss://chat.example/?via=x",
        "wss://other.example",
        "wss://chat.example:80",
    ],
)
def test_different_servers_stay_different(other: str) -> None:
    """A path may lead to another relay behind the same host."""
    assert not same_server("wss://chat.example", other)


def test_an_address_keeps_its_brackets_and_port() -> None:
    """The normal spelling can be dialled."""
    assert normalise("ws://[::1]:80/") == "ws://[::1]"
    assert normalise("ws://[::1]:4390") == "ws://[::1]:4390"


@pytest.mark.parametrize("text", ["", "chat.example", "ws://[::1", "ws://host:99999", "rubbish"])
def test_text_that_is_no_url_equals_itself_only(text: str) -> None:
    """An old configuration may hold anything; looking something up in it must not fail."""
    assert normalise(text) == text


@pytest.mark.parametrize("url", ["ws://127.0.0.1:4390", "wss://chat.example", "WSS://Chat.Example/", "ws://[::1]:4390"])
def test_a_websocket_url_can_be_dialled(url: str) -> None:
    """As the user gave it."""
    assert check_url(url) == url


@pytest.mark.parametrize(
    "url",
    [
        "",
        "chat.example",
        "http://chat.example",
        "ws://",
        "ws://host:99999",
        "ws://host:0",
        "ws://[::1",
        "ws://user:secret@host",
        "ws://host/a b",
        "ws://host\n",
    ],
)
def test_any_other_url_is_refused_before_dialling(url: str) -> None:
    """With the expected form, not with a library's exception."""
    with pytest.raises(InvalidUrl, match=r"\(expected `ws://host` or `wss://host`\)"):
        check_url(url)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("wss://Chat.Example:443/team", "wss://chat.example"),
        ("wss://chat.example:0443?via=x", "wss://chat.example"),
        ("ws://[::1]:4390", "ws://[::1]:4390"),
        ("ws://[0:0:0:0:0:0:0:1]:4390/", "ws://[::1]:4390"),
        ("ws://[2001:DB8:0::A]:80", "ws://[2001:db8::a]"),
        ("ws://[FE80::1%eth0]:4390", "ws://[fe80::1%eth0]:4390"),
        ("wss://bücher.example", "wss://xn--bcher-kva.example"),
        ("wss://BÜCHER.example", "wss://xn--bcher-kva.example"),
        ("wss://xn--bcher-kva.example:443", "wss://xn--bcher-kva.example"),
        (f"wss://{'ü' * 70}.example", f"wss://{'ü' * 70}.example"),
    ],
)
def test_spellings_of_one_host_and_port_are_one_origin(url: str, expected: str) -> None:
    """A login is for an origin: it must not be refused because of its spelling."""
    assert origin(url) == expected
    assert origin(expected) == expected


def test_other_hosts_and_ports_are_other_origins() -> None:
    """Another operator may answer there."""
    urls = [
        "ws://[::1]",
        "ws://[::2]",
        "ws://[::1]:81",
        "wss://[::1]",
        "ws://b\u00fccher.example",
        "ws://bucher.example",
    ]
    assert len({origin(url) for url in urls}) == len(urls)
