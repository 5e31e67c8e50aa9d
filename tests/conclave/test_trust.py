"""The cluster that is expected behind a URL, and the refusal of another one."""

import asyncio
from pathlib import Path

import pytest

from conclave.client.trust import Pins, check_cluster, check_upgrade
from conclave.errors import NotTrusted
from conclave.machine.config import LocalConfig, Registration, load
from conclave.machine.config_edit import pin, register

URL = "wss://relay.example"
ANN = Registration(URL, "ann", "laptop")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A configuration with one registration, without a pin."""
    path = tmp_path / "config.toml"
    register(path, ANN)
    return path


def pins(path: Path) -> Pins:
    return Pins(path, load(path))


def test_another_cluster_is_refused_with_both_names_and_what_to_do() -> None:
    """The reader has to decide, and has nothing but this text."""
    check_cluster(URL, "one", "one")
    with pytest.raises(NotTrusted) as caught:
        check_cluster(URL, "one", "two")
    for part in ("`one`", "`two`", "nothing was signed", f"`conclave server trust {URL}`"):
        assert part in str(caught.value)


@pytest.mark.parametrize("told", [None, "one"])
def test_a_pinned_cluster_gets_no_v1_login(told: str | None) -> None:
    """A v1 login names no server: a rogue server would only have to offer no v2."""
    check_upgrade(URL, "one", told, version=2)
    with pytest.raises(NotTrusted, match="protocol v1 only") as caught:
        check_upgrade(URL, "one", told, version=1)
    assert f"`conclave server trust {URL}`" in str(caught.value)


@pytest.mark.parametrize("version", [1, 2])
def test_a_server_that_tells_another_id_is_refused_at_once(version: int) -> None:
    """In either version."""
    with pytest.raises(NotTrusted, match="says it is cluster `two`"):
        check_upgrade(URL, "one", "two", version=version)


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("told", [None, "one"])
def test_without_a_pin_every_server_will_do(told: str | None, version: int) -> None:
    """The original's, above all, which is never pinned."""
    check_upgrade(URL, None, told, version=version)


async def test_the_first_v2_login_pins(path: Path) -> None:
    """A registration from before there were pins, in any spelling of the URL."""
    mine = pins(path)
    assert mine.expected(URL) is None
    assert await mine.note("wss://Relay.example:443/", "one")
    assert mine.expected(URL) == mine.expected("wss://RELAY.example") == "one"
    assert load(path).servers == (Registration(URL, "ann", "laptop", "one"),)
    assert not await mine.note(URL, "two"), "the first one counts"
    assert load(path).servers[0].cluster == "one"


async def test_of_two_first_logins_one_pins(path: Path) -> None:
    """Two processes may see the server for the first time at once; the later one does not overrule the other."""
    mine, other = pins(path), pins(path)
    assert await mine.note(URL, "one")
    assert not await other.note(URL, "two")
    assert other.expected(URL) == "one"


@pytest.mark.parametrize(("url", "cluster"), [(URL, None), ("wss://elsewhere.example", "one")])
async def test_what_is_no_v2_login_or_no_registration_is_not_pinned(path: Path, url: str, cluster: str | None) -> None:
    """A v1 login proves no cluster, and a server that was only tried is nothing to remember."""
    assert not await pins(path).note(url, cluster)
    assert load(path).servers == (ANN,)


async def test_a_pin_that_cannot_be_written_holds_while_the_process_lives(path: Path) -> None:
    """A configuration may be read-only, deployed by another; that must not prevent a connection."""
    mine = pins(path)
    await asyncio.to_thread(path.write_text, "servers = 5")
    assert not await mine.note(URL, "one")
    assert mine.expected(URL) == "one"


def test_a_pin_is_changed_only_over_the_one_that_was_seen(path: Path) -> None:
    """Consent to one change must not count for another."""
    assert not pin(path, URL, "two", over="one")
    assert pin(path, URL, "one", over=None)
    assert not pin(path, URL, "two", over=None)
    assert pin(path, URL, "two", over="one")
    assert load(path).servers[0].cluster == "two"
    assert pin(path, URL, None, over="two")
    assert load(path) == LocalConfig(servers=(ANN,))
    assert "cluster" not in path.read_text()


def test_registering_again_keeps_the_pin(path: Path) -> None:
    """A new name there is no reason to trust another server."""
    pin(path, URL, "one", over=None)
    register(path, Registration(URL, "zoe", "laptop"))
    assert load(path).servers == (Registration(URL, "zoe", "laptop", "one"),)


def test_a_pin_leaves_the_rest_of_the_file_alone(path: Path) -> None:
    """Comments, unknown keys, and entries of other servers."""
    text = (
        f'# mine\ncolour = "red"\n\n[[servers]]\nurl = "{URL}"\nusername = "ann"\nmachine = "laptop"\nx = 1\n'
        '\n# theirs\n[[servers]]\nurl = "wss://b"\nusername = "b"\nmachine = "c"\n'
    )
    path.write_text(text)
    assert pin(path, URL, "one", over=None)
    assert path.read_text() == text.replace("x = 1\n", 'x = 1\ncluster = "one"\n')
