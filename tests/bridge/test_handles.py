"""Session handles: valid for any name of the directory, and unique for any number of bridges in it."""

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.connection.handles import Handle, chosen, of_directory
from conclave.errors import InvalidName
from conclave.names import NameKind, check_name
from tests.support.hostile import NAMES


@pytest.mark.parametrize(
    ("directory", "handle"),
    [
        ("/home/ann/conclave", "conclave"),
        ("/home/ann/my project", "my project"),
        ("/home/ann/.config", ".config"),
        ("/srv/cafe\u0301", "café"),
        ("/srv/日本語", "日本語"),
        ("/srv/a\nb\x1b[31m", "a-b-[31m"),
        ("/srv/ spaced ", "spaced"),
        ("/srv/-x-", "x"),
        ("/srv/bad\udcffbytes", "bad-bytes"),
        ("/srv/\u202eevil", "evil"),
        ("/srv/\u200b\u3164", "session"),
        ("/", "session"),
    ],
)
def test_a_handle_is_the_directorys_name_made_valid(directory: str, handle: str) -> None:
    """People recognise their session by it; a directory may be called anything."""
    assert of_directory(Path(directory)).name == handle


@given(st.one_of(st.text(st.characters(exclude_categories=())), st.sampled_from(NAMES)))
def test_every_directory_yields_a_valid_handle_and_so_does_every_collision(name: str) -> None:
    """A server refuses any other, and the bridge would never connect."""
    handle = of_directory(Path("/srv") / name.replace("/", "").replace("\x00", ""))
    for _ in range(3):
        check_name(NameKind.SESSION, handle.name)
        handle = handle.superseded()
    check_name(NameKind.SESSION, Handle(handle.base, explicit=False, number=99_999).name)


def test_a_long_name_leaves_room_for_its_numbers() -> None:
    """A handle has 128 characters at most."""
    handle = of_directory(Path("/srv") / ("é" * 127))
    assert len(handle.name) == 122
    assert len(handle.superseded().name) == 124
    cut_at_a_space = of_directory(Path("/srv") / f"{'x' * 121} {'y' * 80}")
    assert cut_at_a_space.name == "x" * 121


def test_the_names_after_a_collision() -> None:
    """Numbered from two on, also where the directory's own name ends in a number."""
    first = of_directory(Path("/srv/dir"))
    names = [first.name, first.superseded().name, first.superseded().superseded().name]
    assert names == ["dir", "dir-2", "dir-3"]
    assert of_directory(Path("/srv/dir-2")).superseded().name == "dir-2-2"


def test_a_chosen_handle_is_checked_and_never_changes() -> None:
    """Other users whisper to it; an owner who chose it twice has to be told."""
    handle = chosen("razel")
    assert handle.name == "razel"
    assert handle.superseded() == handle
    with pytest.raises(InvalidName, match="invalid session handle"):
        chosen("a/b")


@given(st.integers(1, 8), st.randoms(use_true_random=False))
def test_any_number_of_bridges_in_one_directory_get_distinct_names(count: int, chance: random.Random) -> None:
    """In any order of logins each gets a name of its own, without gaps, after a bounded number of attempts."""
    bridges = {number: of_directory(Path("/srv/dir")) for number in range(count)}
    holders: dict[str, int] = {}
    to_login = list(bridges)
    moves = 0
    while to_login:
        bridge = to_login.pop(chance.randrange(len(to_login)))
        name = bridges[bridge].name
        earlier = holders.get(name)
        holders[name] = bridge
        if earlier is not None:
            bridges[earlier] = bridges[earlier].superseded()
            to_login.append(earlier)
            moves += 1
    assert sorted(holders.values()) == list(range(count))
    assert set(holders) == {"dir", *(f"dir-{number}" for number in range(2, count + 1))}
    assert moves <= count * (count - 1) // 2
