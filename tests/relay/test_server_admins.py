"""The operator's list of admins, with their keys."""

import base64

import pytest

from conclave.errors import ConfigError
from relay.services.server_admins import ServerAdmins

KEY, OTHER = bytes(range(32)), bytes(32)
KEY_TEXT = base64.urlsafe_b64encode(KEY).decode().rstrip("=")


def test_an_unpinned_name_has_the_role_with_any_key() -> None:
    """Convenient for a laptop, and worth a warning on a server: see `unpinned`."""
    admins = ServerAdmins.parse(["ann"])
    assert admins.grants("ann", KEY)
    assert admins.grants("ann", OTHER)
    assert not admins.reserves("ann", OTHER)
    assert admins.unpinned == ["ann"]


def test_a_pinned_name_has_the_role_with_its_key_only() -> None:
    """Also at a login long after the registration: a pin that came later must not promote a stranger."""
    admins = ServerAdmins.parse([f"ann={KEY_TEXT}"])
    assert admins.grants("ann", KEY)
    assert not admins.grants("ann", OTHER)
    assert admins.unpinned == []


def test_a_pinned_name_is_reserved_for_its_key() -> None:
    """No other key may register it first."""
    admins = ServerAdmins.parse([f"ann={KEY_TEXT}"])
    assert admins.reserves("ann", OTHER)
    assert not admins.reserves("ann", KEY)
    assert not admins.reserves("bob", OTHER)


def test_other_names_are_no_admins() -> None:
    """The role is by name, exactly."""
    admins = ServerAdmins.parse(["ann"])
    assert not any(admins.grants(user, KEY) for user in ("bob", "", "Ann", "an"))


def test_names_are_repeated_options_or_separated_by_commas() -> None:
    """An environment variable holds one text, and people put spaces after commas."""
    admins = ServerAdmins.parse([f"ann, bob={KEY_TEXT} ,", "cid", "", " , "])
    assert admins.unpinned == ["ann", "cid"]
    assert admins.grants("bob", KEY)
    assert not admins.grants("", KEY)


@pytest.mark.parametrize(
    "spec",
    ["=", f"={KEY_TEXT}", "a/b", "a\u202eb", "x" * 65, "ann=", "ann=short", f"ann={KEY_TEXT}=", f"ann={KEY_TEXT}A"],
)
def test_a_spec_that_could_never_match_is_refused_at_the_start(spec: str) -> None:
    """A mistyped key would otherwise make the name unclaimable for ever, silently."""
    with pytest.raises(ConfigError, match="expected USER or USER=PUBKEY"):
        ServerAdmins.parse([spec])


def test_a_key_that_is_none_is_not_repeated_as_a_traceback() -> None:
    """The operator reads one line that names the spec."""
    with pytest.raises(ConfigError) as caught:
        ServerAdmins.parse(["ann=not a key"])
    assert "invalid admin `ann=not a key`" in str(caught.value)


@pytest.mark.parametrize("specs", [["ann", "ann"], [f"ann,ann={KEY_TEXT}"]])
def test_a_name_given_twice_is_refused(specs: list[str]) -> None:
    """The program does not guess which of the two pins was meant."""
    with pytest.raises(ConfigError, match="given twice"):
        ServerAdmins.parse(specs)
