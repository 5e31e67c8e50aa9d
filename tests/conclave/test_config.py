"""The local configuration: its meaning, and changes that keep every other line."""

import contextlib
import os
import stat
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from filelock import FileLock
from hypothesis import given
from hypothesis import strategies as st

from conclave.errors import ConfigError
from conclave.machine import config_edit
from conclave.machine.config import Level, LocalConfig, Override, Registration, load, parse
from conclave.machine.config_edit import (
    Forgotten,
    forget,
    register,
    remove_override,
    set_ceiling,
    set_default,
    set_override,
    unset_ceiling,
)
from conclave.machine.locations import default_directory

FULL = """\
# my servers
default_permission = "notify" # careful
colour = ["red", { x = 1 }]

# work
[[servers]]
url = "wss://chat.example"  # main
username = "ann"
machine = "laptop"
pin = "keep me"

# home
[[servers]]
url = "ws://127.0.0.1:4390"
username = "annie"
machine = "laptop"

# the noisy one
[[overrides]]
server = "wss://chat.example"
channel = "ops"
level = "converse"

[[overrides]]
server = "wss://chat.example"
level = "act"

[other]
tool = true
# the end
"""

WORK = Registration("wss://chat.example", "ann", "laptop")
HOME = Registration("ws://127.0.0.1:4390", "annie", "laptop")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "config.toml"


@pytest.fixture
def full(path: Path) -> Path:
    path.write_text(FULL)
    return path


# --- Reading ---


def test_a_missing_file_means_the_defaults(path: Path) -> None:
    """A new user has no configuration."""
    assert load(path) == LocalConfig()
    assert load(path).default_permission is Level.NOTIFY


def test_registrations_and_overrides_are_read_and_unknown_keys_ignored(full: Path) -> None:
    """Newer versions and other tools may add keys."""
    assert load(full) == LocalConfig(
        Level.NOTIFY,
        (WORK, HOME),
        (
            Override("wss://chat.example", Level.CONVERSE, "ops"),
            Override("wss://chat.example", Level.ACT),
        ),
    )


def test_the_empty_lists_of_the_original_are_read(path: Path) -> None:
    """It writes them where there is nothing to list."""
    path.write_text('default_permission = "mute"\nservers = []\noverrides = []\n')
    assert load(path) == LocalConfig(Level.MUTE)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("default_permission =", ""),
        ('default_permission = "loud"', r"\$\.default_permission"),
        ("servers = 3", r"\$\.servers"),
        ('[[servers]]\nurl = "wss://a"\nusername = "u"', "machine"),
        ('[[overrides]]\nserver = "wss://a"\nlevel = "Act"', r"\$\.overrides\[0\]\.level"),
    ],
)
def test_a_mistake_is_reported_with_file_and_place(path: Path, text: str, place: str) -> None:
    """A permission that is silently ignored could let an agent act."""
    path.write_text(text)
    with pytest.raises(ConfigError, match=f"^failed to parse config `{path}`: .*{place}"):
        load(path)


def test_bytes_that_are_no_text_are_refused(path: Path) -> None:
    """With the same kind of error as any other mistake."""
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"^failed to parse config"):
        load(path)


def test_a_file_that_cannot_be_read_is_reported(path: Path) -> None:
    """A directory in its place, for one."""
    path.mkdir()
    with pytest.raises(ConfigError, match=r"^failed to read config"):
        load(path)


def test_levels_resolve_by_scope_and_in_every_spelling_of_the_url(path: Path) -> None:
    """A slash must not turn a muted server into an acting one."""
    config = parse(FULL, path)
    assert config.level("WSS://chat.example/", "ops") is Level.CONVERSE
    assert config.level("wss://chat.example:443", None) is Level.ACT
    assert config.level("wss://chat.example", "dev") is Level.NOTIFY
    assert config.level("wss://elsewhere.example", "ops") is Level.NOTIFY
    assert config.registration("wss://Chat.Example/") == WORK


def test_the_first_matching_override_decides() -> None:
    """As in the original, should a file list two."""
    config = LocalConfig(overrides=(Override("ws://a", Level.MUTE, "c"), Override("ws://a/", Level.ACT, "c")))
    assert config.level("ws://a", "c") is Level.MUTE


def test_the_ceiling_is_converse_unless_the_owner_says_otherwise(path: Path) -> None:
    """The default ceiling of an agent stops short of acting."""
    assert load(path).permission_ceiling is Level.CONVERSE
    assert parse('permission_ceiling = "mute"', path).permission_ceiling is Level.MUTE
    with pytest.raises(ConfigError, match=r"\$\.permission_ceiling"):
        parse('permission_ceiling = "high"', path)


def test_levels_ascend() -> None:
    """Levels compare by what they permit, not by their spelling."""
    ascending = [Level.MUTE, Level.NOTIFY, Level.CONVERSE, Level.ACT]
    assert sorted([Level.ACT, Level.CONVERSE, Level.MUTE, Level.NOTIFY]) == ascending
    for number, level in enumerate(ascending):
        assert [level > other for other in ascending] == [number > other for other in range(4)]
        assert [level <= other for other in ascending] == [number <= other for other in range(4)]


def test_only_the_two_upper_levels_may_send() -> None:
    """An agent at notify or below stays silent."""
    assert [level.may_emit for level in Level] == [False, False, True, True]


def test_an_unknown_level_names_those_there_are() -> None:
    """Case matters."""
    with pytest.raises(ConfigError) as caught:
        Level.parse("Act")
    assert str(caught.value) == "unknown permission level `Act` (expected mute, notify, converse, or act)"


def test_the_default_directory_is_the_systems_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """On Linux the XDG directory."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    if sys.platform == "linux":
        assert default_directory() == tmp_path / "conclave"
    assert default_directory().name == "conclave"


# --- Changing ---


def test_a_first_registration_creates_file_and_directory(tmp_path: Path) -> None:
    """`register` is often the first command of all."""
    path = tmp_path / "new" / "config.toml"
    register(path, WORK)
    assert path.read_text() == ('[[servers]]\nurl = "wss://chat.example"\nusername = "ann"\nmachine = "laptop"\n')


def test_a_new_registration_joins_the_others_and_leaves_the_rest_alone(full: Path) -> None:
    """Comments stay with what they introduce."""
    register(full, Registration("wss://new.example", "ann", "laptop"))
    added = '[[servers]]\nurl = "wss://new.example"\nusername = "ann"\nmachine = "laptop"\n\n'
    assert full.read_text() == FULL.replace("# the noisy one\n", f"{added}# the noisy one\n")


def test_registering_again_changes_the_entry_in_place(full: Path) -> None:
    """All other fields of that entry are kept, and the URL takes the new spelling."""
    register(full, Registration("wss://chat.example/", "anna", "laptop"))
    assert full.read_text() == FULL.replace('"wss://chat.example"  #', '"wss://chat.example/"  #').replace(
        '"ann"', '"anna"'
    )


def test_forgetting_a_server_drops_its_overrides_and_keeps_every_comment(full: Path) -> None:
    """A comment below an entry introduces the next one."""
    assert forget(full, "WSS://chat.example:443/") == Forgotten(registered=True, overrides=2)
    text = full.read_text()
    assert parse(text, full) == LocalConfig(servers=(HOME,))
    assert [line for line in FULL.splitlines() if line.startswith("#")] == [
        line for line in text.splitlines() if line.startswith("#")
    ]
    assert text.index("# home") < text.index("[[servers]]") < text.index("# the noisy one") < text.index("[other]")
    assert tomllib.loads(text)["other"] == {"tool": True}


def test_overrides_of_a_server_without_registration_can_be_forgotten(path: Path) -> None:
    """Otherwise no verb could remove them."""
    set_override(path, Override("wss://gone.example", Level.ACT, "ops"))
    assert forget(path, "wss://gone.example") == Forgotten(registered=False, overrides=1)
    assert load(path) == LocalConfig()


def test_forgetting_an_unknown_server_changes_nothing(full: Path) -> None:
    """Not even the file's layout."""
    assert forget(full, "wss://unknown.example") == Forgotten(registered=False, overrides=0)
    assert full.read_text() == FULL


def test_an_override_of_the_same_scope_is_changed_in_place(full: Path) -> None:
    """One scope, one entry; whispers are a scope of their own."""
    set_override(full, Override("wss://chat.example/", Level.MUTE))
    set_override(full, Override("wss://chat.example", Level.ACT, "dev"))
    assert [(entry.channel, entry.level) for entry in load(full).overrides] == [
        ("ops", Level.CONVERSE),
        (None, Level.MUTE),
        ("dev", Level.ACT),
    ]
    assert remove_override(full, "wss://chat.example", None)
    assert not remove_override(full, "wss://chat.example", None)
    assert [entry.channel for entry in load(full).overrides] == ["ops", "dev"]


def test_the_default_goes_to_the_top_level_even_behind_tables(path: Path) -> None:
    """Below a table header it would belong to that table."""
    path.write_text('[[servers]]\nurl = "ws://a"\nusername = "u"\nmachine = "m"\n')
    set_default(path, Level.MUTE)
    assert load(path) == LocalConfig(Level.MUTE, (Registration("ws://a", "u", "m"),))


def test_the_ceiling_is_set_and_unset_without_touching_anything_else(full: Path) -> None:
    """At the top level, wherever the tables are."""
    set_ceiling(full, Level.NOTIFY)
    assert load(full).permission_ceiling is Level.NOTIFY
    assert load(full).overrides == parse(FULL, full).overrides
    assert unset_ceiling(full)
    assert not unset_ceiling(full)
    assert full.read_text() == FULL


def test_inline_lists_stay_inline_and_empty_ones_become_tables(path: Path) -> None:
    """Both spellings of a list are one to the reader."""
    path.write_text(
        'servers = [\n  { url = "ws://a", username = "u", machine = "m" }, # first\n]\noverrides = []\n[x]\n'
    )
    register(path, WORK)
    set_override(path, Override("ws://a", Level.ACT))
    assert load(path) == LocalConfig(
        servers=(Registration("ws://a", "u", "m"), WORK), overrides=(Override("ws://a", Level.ACT),)
    )
    assert "# first" in path.read_text()
    assert forget(path, "ws://a") == Forgotten(registered=True, overrides=1)
    assert load(path).servers == (WORK,)


def test_lists_in_pieces_are_understood(path: Path) -> None:
    """TOML allows an entry of one list between those of another."""
    path.write_text(
        '[[servers]]\nurl = "ws://a"\nusername = "u"\nmachine = "m"\n[[overrides]]\nserver = "ws://a"\nlevel = "act"\n'
        '[[servers]]\nurl = "ws://b"\nusername = "u"\nmachine = "m"\n'
    )
    register(path, WORK)
    assert [server.url for server in load(path).servers] == ["ws://a", "ws://b", WORK.url]
    assert forget(path, "ws://b") == Forgotten(registered=True, overrides=0)
    assert load(path).overrides == (Override("ws://a", Level.ACT),)


urls = st.sampled_from(["ws://a", "ws://a/", "WS://A", "ws://b", "wss://c/x"])
names = st.text(min_size=1, max_size=5)
levels = st.sampled_from(Level)
changes = st.lists(
    st.one_of(
        st.builds(Registration, urls, names, names),
        st.builds(Override, urls, levels, st.one_of(st.none(), names)),
        levels,
        urls,
    ),
    max_size=8,
)


@given(changes=changes, start=st.sampled_from(["", FULL, "servers = []\noverrides = []\n", "# only a comment"]))
def test_any_series_of_changes_has_its_meaning(
    tmp_path_factory: pytest.TempPathFactory, changes: list[Registration | Override | Level | str], start: str
) -> None:
    """The file after each change reads as the model after the same change; nothing else in it is lost."""
    path = tmp_path_factory.mktemp("config") / "config.toml"
    path.write_text(start)
    for change in changes:
        before = load(path)
        apply(path, change)
        after = load(path)
        if isinstance(change, Registration):
            assert after.registration(change.url) == change
            others = [entry for entry in before.servers if entry != before.registration(change.url)]
            assert [entry for entry in after.servers if entry != change] == others
        elif isinstance(change, Override):
            assert after.level(change.server, change.channel) is change.level
        elif isinstance(change, Level):
            assert after == LocalConfig(change, before.servers, before.overrides)
        else:
            assert after.registration(change) is None
            assert not any(entry.covers(change, entry.channel) for entry in after.overrides)
    kept = tomllib.loads(path.read_text())
    assert {key: kept[key] for key in ("colour", "other") if key in kept} == {
        key: tomllib.loads(start)[key] for key in ("colour", "other") if key in tomllib.loads(start)
    }


def apply(path: Path, change: Registration | Override | Level | str) -> None:
    if isinstance(change, Registration):
        register(path, change)
    elif isinstance(change, Override):
        set_override(path, change)
    elif isinstance(change, Level):
        set_default(path, change)
    else:
        forget(path, change)


# --- The file on disk ---


def test_a_symbolic_link_survives_a_change(tmp_path: Path) -> None:
    """Users keep their configuration in a repository and link to it."""
    real = tmp_path / "dotfiles" / "conclave.toml"
    real.parent.mkdir()
    real.write_text("# linked\n")
    link = tmp_path / "config.toml"
    link.symlink_to(real)
    register(link, WORK)
    assert link.is_symlink()
    assert real.read_text().startswith("# linked\n")
    assert load(link).servers == (WORK,)


def test_a_link_to_itself_is_an_error_not_a_crash(path: Path) -> None:
    """Any path that cannot be used is reported the same way."""
    path.symlink_to(path)
    with pytest.raises(ConfigError, match="config"):
        register(path, WORK)


def test_the_files_mode_is_kept(full: Path) -> None:
    """A private file must stay private."""
    full.chmod(0o600)
    set_default(full, Level.MUTE)
    assert stat.S_IMODE(full.stat().st_mode) == 0o600


def test_a_failed_write_leaves_the_old_file_and_no_other(full: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk costs the change, never the configuration."""

    def fail(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(ConfigError, match=r"failed to write config `.*`: No space left on device"):
        set_default(full, Level.MUTE)
    assert full.read_text() == FULL
    assert {entry.name for entry in full.parent.iterdir()} <= {"config.toml", "config.toml.lock"}


def test_a_broken_file_is_not_overwritten(path: Path) -> None:
    """A typo must not cost the user what they wrote."""
    path.write_text("servers = oops")
    with pytest.raises(ConfigError, match="failed to parse config"):
        register(path, WORK)
    assert path.read_text() == "servers = oops"


def test_a_lock_held_too_long_ends_in_a_clear_error(path: Path) -> None:
    """A command that hangs must not make others hang."""
    with (
        FileLock(path.with_name("config.toml.lock")),
        pytest.raises(ConfigError, match=r"failed to lock config `.*`: another command has held it"),
        config_edit._rewriting(path, wait=0.01),
    ):
        pass


def test_commands_at_once_lose_no_change(path: Path) -> None:
    """Each reads and writes under the lock."""
    program = (
        "import sys, pathlib; from conclave.machine.config import Registration;"
        "from conclave.machine.config_edit import register;"
        "sys.stdin.read();"
        "[register(pathlib.Path(sys.argv[1]), Registration(f'ws://{sys.argv[2]}-{n}', 'u', 'm')) for n in range(5)]"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", program, str(path), str(number)], stdin=subprocess.PIPE)
        for number in range(4)
    ]
    for process in processes:
        assert process.stdin is not None
        with contextlib.closing(process.stdin):
            pass  # the starting signal
    assert [process.wait(timeout=60) for process in processes] == [0, 0, 0, 0]
    assert {entry.url for entry in load(path).servers} == {f"ws://{p}-{n}" for p in range(4) for n in range(5)}
