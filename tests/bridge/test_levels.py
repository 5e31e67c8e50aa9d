"""Permission levels: the owner decides; a session may lower a level, and raise one up to the ceiling."""

import shlex
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.errors import AboveCeiling
from bridge.session.levels import Levels
from cli.main import run
from conclave.machine.config import Level, LocalConfig, Override, Registration, load

A, B = "wss://a.example", "wss://b.example"
MUTE, NOTIFY, CONVERSE, ACT = Level


def config(
    *overrides: Override, default: Level = NOTIFY, ceiling: Level = CONVERSE, servers: tuple[str, ...] = ()
) -> LocalConfig:
    return LocalConfig(default, tuple(Registration(url, "ann", "laptop") for url in servers), overrides, ceiling)


# --- The owner's word ---


def test_without_a_change_the_configuration_holds() -> None:
    """In every spelling of a server's URL; whispers are a scope of their own."""
    levels = Levels(config(Override(A, ACT, "ops"), Override(A, MUTE)))
    assert levels.level(["WSS://a.example:443/"], "ops") is ACT
    assert levels.level([A], None) is MUTE
    assert levels.level([A], "dev") is NOTIFY
    assert levels.level([B], "ops") is NOTIFY
    assert [levels.may_emit([A], channel) for channel in ("ops", None, "dev")] == [True, False, False]


def test_the_levels_of_every_url_of_a_cluster_count() -> None:
    """The URL by which a message arrived must not decide what the agent may do with it."""
    levels = Levels(config(Override(B, CONVERSE, "ops"), Override(A, MUTE, "dev"), servers=(A, B)))
    for urls in ([A, B], [B, A], [A], [B]):
        assert levels.level(urls, "ops") is CONVERSE
        assert levels.level(urls, "dev") is MUTE


def test_where_they_disagree_the_first_configured_url_wins() -> None:
    """Not the first override in the file, and not the URL that answered first."""
    levels = Levels(config(Override(B, ACT, "ops"), Override(A, MUTE, "ops"), servers=(A, B)))
    assert levels.level([B, A], "ops") is MUTE
    levels.configure(config(Override(B, ACT, "ops"), Override(A, MUTE, "ops"), servers=(B, A)))
    assert levels.level([A, B], "ops") is ACT


def test_urls_of_one_cluster_share_the_sessions_changes() -> None:
    """A change under the first URL has precedence where both were changed."""
    levels = Levels(config(servers=(A, B, "wss://c.example")))
    levels.set([A], "ops", MUTE)
    levels.set([B], "ops", CONVERSE)
    levels.set([B], "dev", MUTE)
    levels.set(["wss://c.example"], "dev", CONVERSE)
    assert levels.level([A, B], "ops") is MUTE
    assert levels.level([B], "ops") is MUTE
    assert levels.level([A], "dev") is MUTE
    assert levels.level([B, "wss://c.example"], "dev") is MUTE
    assert levels.level(["wss://c.example"], "ops") is MUTE


def test_a_merger_lowers_levels_that_the_other_url_does_not_allow() -> None:
    """The configuration of the first URL bounds the changes under the second."""
    levels = Levels(config(Override(B, ACT, "ops"), Override(A, MUTE, "ops"), servers=(A, B), ceiling=NOTIFY))
    levels.set([B], "ops", ACT)
    assert levels.level([A, B], "ops") is NOTIFY


# --- The session's changes ---


def test_a_session_changes_a_channel_whispers_or_the_default() -> None:
    """The narrower scope has precedence, by owner or session; the default holds where neither set a level."""
    levels = Levels(config(Override(A, MUTE, "noise")))
    levels.set_default(CONVERSE)
    levels.set([A], None, NOTIFY)
    levels.set([A], "ops", MUTE)
    assert levels.level([A], "ops") is MUTE
    assert levels.level([A], None) is NOTIFY
    assert levels.level([A], "noise") is MUTE
    assert levels.level([A], "dev") is CONVERSE
    assert levels.level([B], None) is CONVERSE


def test_a_session_does_not_raise_a_level_above_the_ceiling() -> None:
    """The idea may come from the author of the last message. The level stays as it was."""
    levels = Levels(config())
    levels.set([A], "ops", CONVERSE)
    with pytest.raises(AboveCeiling):
        levels.set([A], "ops", ACT)
    with pytest.raises(AboveCeiling):
        levels.check([A], None, ACT)
    with pytest.raises(AboveCeiling):
        levels.set_default(ACT)
    assert levels.level([A], "ops") is CONVERSE
    assert levels.level([A], None) is NOTIFY


def test_a_session_may_return_to_the_owners_level() -> None:
    """A session that held back is not locked out of what the owner allows there; elsewhere it is."""
    levels = Levels(config(Override(A, ACT, "ops"), ceiling=NOTIFY))
    levels.set([A], "ops", MUTE)
    levels.set([A], "ops", ACT)
    assert levels.level([A], "ops") is ACT
    with pytest.raises(AboveCeiling):
        levels.set([A], "dev", CONVERSE)
    levels = Levels(config(default=ACT, ceiling=MUTE))
    levels.set_default(MUTE)
    levels.set_default(ACT)


@pytest.mark.parametrize(
    ("channel", "ceiling", "text"),
    [
        ("ops", CONVERSE, f"above `converse`; the owner of this machine can, with: conclave perm set act --server {A}"),
        ("ops", MUTE, "above `notify`"),
        ("my room; reboot", CONVERSE, "--channel 'my room; reboot'"),
        ("o\nps", CONVERSE, r"--channel 'o\nps'"),
        (None, CONVERSE, "--whisper"),
    ],
)
def test_the_refusal_names_the_owners_command(channel: str | None, ceiling: Level, text: str) -> None:
    """It can be pasted into a shell for any name of the channel."""
    with pytest.raises(AboveCeiling) as caught:
        Levels(config(ceiling=ceiling)).set([A], channel, ACT)
    assert text in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("scope", ["channel", "whisper", "default"])
def test_the_named_command_sets_the_level(tmp_path: Path, scope: str) -> None:
    """After it, the very same change of the session is allowed."""

    def change(levels: Levels) -> None:
        if scope == "default":
            levels.set_default(ACT)
        else:
            levels.set([A], "my room" if scope == "channel" else None, ACT)

    levels = Levels(config())
    with pytest.raises(AboveCeiling) as caught:
        change(levels)
    _, *words = shlex.split(str(caught.value).partition("with: ")[2])
    assert run(["--config-dir", str(tmp_path), *words]) == 0
    levels.configure(load(tmp_path / "config.toml"))
    change(levels)


# --- The owner's newer word ---


def test_a_newer_configuration_replaces_the_sessions_change() -> None:
    """Of the same scope only: `perm set` takes effect at once, and in its scope."""
    levels = Levels(config())
    levels.set([A], "ops", CONVERSE)
    levels.set([A], "dev", CONVERSE)
    levels.set_default(MUTE)
    levels.configure(config(Override(A, NOTIFY, "ops")))
    assert levels.level([A], "ops") is NOTIFY
    assert levels.level([A], "dev") is CONVERSE
    assert levels.level([A], None) is MUTE
    levels.configure(config(Override(A, NOTIFY, "ops"), default=CONVERSE))
    assert levels.level([A], "dev") is CONVERSE
    assert levels.level([A], None) is CONVERSE


def test_a_repeated_configuration_replaces_the_sessions_change() -> None:
    """`perm set` ends the session's change, also if the file had the same level before; other scopes keep theirs."""
    levels = Levels(config(Override(A, MUTE, "ops"), Override(A, ACT)))
    levels.set([A], "ops", CONVERSE)
    levels.set([A], None, NOTIFY)
    levels.set([A], "dev", MUTE)
    levels.set_default(CONVERSE)
    levels.repeat()
    assert levels.level([A], "ops") is MUTE
    assert levels.level([A], None) is ACT
    assert levels.level([A], "dev") is MUTE
    assert levels.level([A], "new") is NOTIFY


def test_a_removed_setting_replaces_the_sessions_change() -> None:
    """`perm unset` means the default, also where the session had lowered the level meanwhile."""
    levels = Levels(config(Override(A, ACT, "ops")))
    levels.set([A], "ops", MUTE)
    levels.configure(config())
    assert levels.level([A], "ops") is NOTIFY


def test_a_setting_for_another_url_of_the_cluster_has_the_same_effect() -> None:
    """The owner names the server by whichever URL they remember."""
    levels = Levels(config(servers=(A, B)))
    levels.set([A, B], "ops", CONVERSE)
    levels.configure(config(Override(B, MUTE, "ops"), servers=(A, B)))
    assert levels.level([A, B], "ops") is MUTE


def test_a_setting_of_another_scope_changes_nothing() -> None:
    """A new server, or the same settings in another order."""
    levels = Levels(config(Override(A, ACT, "ops"), Override(A, MUTE)))
    levels.set([A], "ops", NOTIFY)
    levels.set_default(CONVERSE)
    levels.configure(config(Override(A, MUTE), Override(A, ACT, "ops"), servers=(A, B)))
    assert levels.level([A], "ops") is NOTIFY
    assert levels.level([A], "dev") is CONVERSE


def test_a_lowered_ceiling_lowers_the_sessions_levels_for_good() -> None:
    """Also the default; what the owner gives stays. A later rise is not a reason to trust an old change again."""
    levels = Levels(config(Override(A, CONVERSE, "ops")))
    levels.set([A], "dev", CONVERSE)
    levels.set([A], "ops", NOTIFY)
    levels.set([A], "ops", CONVERSE)
    levels.set_default(CONVERSE)
    levels.configure(config(Override(A, CONVERSE, "ops"), ceiling=MUTE))
    assert levels.level([A], "ops") is CONVERSE
    assert levels.level([A], "dev") is NOTIFY
    assert levels.level([A], None) is NOTIFY
    levels.configure(config(Override(A, CONVERSE, "ops"), ceiling=ACT))
    assert levels.level([A], "dev") is NOTIFY
    assert levels.level([A], None) is NOTIFY


def test_a_lowered_default_lowers_the_levels_that_it_allowed() -> None:
    """A session that took a channel up to `act` because everything was."""
    levels = Levels(config(default=ACT))
    levels.set([A], "ops", MUTE)
    levels.set([A], "ops", ACT)
    levels.configure(config())
    assert levels.level([A], "ops") is CONVERSE


# --- A channel with another name ---


def test_a_renamed_channel_keeps_its_level() -> None:
    """A rename must not unmute a channel."""
    levels = Levels(config(Override(A, MUTE, "noise")))
    levels.set([A], "ops", CONVERSE)
    levels.renamed([A], "noise", "news")
    levels.renamed([A], "ops", "general")
    assert levels.level([A], "news") is MUTE
    assert levels.level([A], "general") is CONVERSE
    assert levels.level([A], "ops") is NOTIFY
    assert levels.level([B], "news") is NOTIFY


def test_a_renamed_channel_does_not_keep_the_owners_override() -> None:
    """They gave `act` to a name. And if the new name has a level of its own, that one counts."""
    levels = Levels(config(Override(A, ACT, "ops"), Override(A, MUTE, "muted")))
    levels.renamed([A], "ops", "general")
    assert levels.level([A], "general") is CONVERSE
    levels.renamed([A], "general", "muted")
    assert levels.level([A], "muted") is MUTE


def test_a_renamed_channel_without_a_level_follows_the_default() -> None:
    """There is no setting for it, and none is invented."""
    levels = Levels(config())
    levels.renamed([A], "ops", "general")
    levels.configure(config(default=MUTE))
    assert levels.level([A], "general") is MUTE


# --- Whatever happens ---

urls = st.sampled_from([[A], [B], [A, B], [B, A], ["WSS://A.example/"]])
channels = st.sampled_from([None, "ops", "dev"])
any_level = st.sampled_from(Level)
configs = st.builds(
    LocalConfig,
    any_level,
    st.sampled_from([(), (Registration(A, "u", "m"), Registration(B, "u", "m")), (Registration(B, "u", "m"),)]),
    st.lists(st.builds(Override, st.sampled_from([A, B, f"{A}/"]), any_level, channels), max_size=4).map(tuple),
    any_level,
)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("set"), urls, channels, any_level),
        st.tuples(st.just("set_default"), any_level),
        st.tuples(st.just("configure"), configs),
        st.tuples(st.just("renamed"), urls, st.sampled_from(["ops", "dev"]), st.sampled_from(["ops", "dev", "new"])),
    ),
    max_size=12,
)


@given(configs, steps)
def test_no_tool_call_exceeds_the_owners_bounds(first: LocalConfig, history: list[tuple[object, ...]]) -> None:
    """In any order of changes, settings and mergers. Lowering is always possible."""
    levels, said = Levels(first), first
    for name, *arguments in history:
        if name == "configure":
            assert isinstance(arguments[0], LocalConfig)
            said = arguments[0]
        try:
            getattr(levels, str(name))(*arguments)
        except AboveCeiling:
            assert arguments[-1] > said.permission_ceiling  # type: ignore[operator]
        together = [[A, B], [A, B]] if levels._clusters else [[A], [B]]
        for known, channel in product(together, (None, "ops", "dev", "new")):
            assert levels.level(known, channel) <= max(said.permission_ceiling, Levels(said).level(known, channel))
    for channel in (None, "ops", "dev", "new"):
        for level in reversed(Level):
            if level <= levels.level([A], channel):
                levels.set([A], channel, level)
                assert levels.level([A], channel) is level
