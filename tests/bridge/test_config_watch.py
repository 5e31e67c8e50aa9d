"""The owner's configuration is followed while the bridge runs: at once, and never halfway."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bridge.app.config_watch import watch
from conclave.errors import ConfigError
from conclave.machine.config import Level, LocalConfig, Override
from conclave.machine.config_edit import set_default, set_override
from tests.support.waiting import pause, wait_until

MUTED = 'default_permission = "mute"\n'


class Watched:
    """The notifications of a file watch."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.configs: list[LocalConfig] = []
        self.errors: list[ConfigError] = []
        self.repeats = 0

    def repeat(self) -> None:
        self.repeats += 1

    @property
    def levels(self) -> list[Level]:
        return [config.default_permission for config in self.configs]

    async def told(self, count: int) -> None:
        await wait_until(lambda: len(self.configs) >= count, what=f"{count} configurations were told")

    async def complained(self, count: int) -> None:
        await wait_until(lambda: len(self.errors) >= count, what=f"{count} errors were told")


@pytest.fixture
async def watched(tmp_path: Path) -> AsyncIterator[Watched]:
    """A watcher of a file that says `mute`."""
    watched = Watched(tmp_path / "config.toml")
    watched.path.write_text(MUTED)
    task = asyncio.create_task(watch(watched.path, watched.configs.append, watched.repeat, watched.errors.append))
    try:
        yield watched
    finally:
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled(), "it ends by being cancelled only"


async def test_it_reports_the_present_content_and_each_change(watched: Watched) -> None:
    """A change between the read of the file and the start of the watch is reported, too."""
    await watched.told(1)
    set_default(watched.path, Level.ACT)
    await watched.told(2)
    set_override(watched.path, Override("wss://a", Level.CONVERSE, "ops"))
    await watched.told(3)
    assert watched.levels == [Level.MUTE, Level.ACT, Level.ACT]
    assert watched.configs[2].level("wss://a", "ops") is Level.CONVERSE
    assert watched.errors == []


async def test_a_change_in_place_is_seen_even_at_the_same_size(watched: Watched) -> None:
    """Some editors write into the file itself."""
    await watched.told(1)
    watched.path.write_text('default_permission = "act" \n')
    await watched.told(2)
    assert watched.levels == [Level.MUTE, Level.ACT]


async def test_a_file_that_is_moved_over_it_is_seen_even_with_its_own_time(watched: Watched, tmp_path: Path) -> None:
    """A backup that is put back is older than what it replaces."""
    backup = tmp_path / "backup"
    backup.write_text('default_permission = "act" \n')
    await watched.told(1)
    backup.replace(watched.path)
    await watched.told(2)
    assert watched.levels[-1] is Level.ACT


async def test_a_write_of_the_same_content_is_reported_as_a_repeat(watched: Watched) -> None:
    """A repeated command, or a file saved once more, overrides the changes of a session."""
    await watched.told(1)
    watched.path.write_text(f"# mine\n{MUTED}")
    await wait_until(lambda: watched.repeats == 1)
    os.utime(watched.path)
    await wait_until(lambda: watched.repeats == 2)
    set_default(watched.path, Level.MUTE)
    await wait_until(lambda: watched.repeats == 3)
    assert watched.levels == [Level.MUTE]


async def test_a_change_of_metadata_is_not_reported(watched: Watched) -> None:
    """A new link or new permissions of the file are no statement of the owner."""
    await watched.told(1)
    watched.path.chmod(0o600)
    watched.path.with_name("backup").hardlink_to(watched.path)
    await pause(1)
    set_default(watched.path, Level.ACT)
    await watched.told(2)
    assert watched.levels == [Level.MUTE, Level.ACT]
    assert watched.repeats == 0


async def test_an_invalid_file_is_reported_once_and_changes_nothing(watched: Watched) -> None:
    """A typo must not unmute a channel, and not fill the log either. The next valid version counts."""
    await watched.told(1)
    watched.path.write_text("default_permission = oops")
    await watched.complained(1)
    await pause(1.5)
    assert len(watched.errors) == 1
    watched.path.write_text('default_permission = "loud"')
    await watched.complained(2)
    assert "loud" in str(watched.errors[1])
    watched.path.write_text('default_permission = "act"')
    await watched.told(2)
    assert watched.levels == [Level.MUTE, Level.ACT]


async def test_a_removed_file_stands_for_the_defaults(watched: Watched) -> None:
    """As after a restart; a new file counts again. A directory in its place is an error."""
    await watched.told(1)
    watched.path.unlink()
    await watched.told(2)
    assert watched.configs[1] == LocalConfig()
    watched.path.mkdir()
    await watched.complained(1)
    watched.path.rmdir()
    watched.path.write_text(MUTED)
    await watched.told(3)
    assert watched.levels[-1] is Level.MUTE


async def test_a_symbolic_link_is_followed(tmp_path: Path) -> None:
    """Users keep their configuration in a repository."""
    real = tmp_path / "real.toml"
    real.write_text(MUTED)
    watched = Watched(tmp_path / "config.toml")
    watched.path.symlink_to(real)
    task = asyncio.create_task(watch(watched.path, watched.configs.append, watched.repeat, watched.errors.append))
    try:
        await watched.told(1)
        real.write_text('default_permission = "act"')
        await watched.told(2)
    finally:
        task.cancel()
        await asyncio.wait([task])
    assert watched.levels == [Level.MUTE, Level.ACT]


async def test_a_file_that_is_being_written_is_not_read(watched: Watched) -> None:
    """An editor empties it, or removes it, and then writes: for that moment nothing must be unmuted."""
    await watched.told(1)
    watched.path.unlink()
    for _ in range(8):
        await pause(0.05)
        with watched.path.open("a") as file:
            file.write("# first the comments\n")
    for _ in range(8):
        await pause(0.05)
        watched.path.write_text("# then all over\n")
    watched.path.write_text('default_permission = "act"')
    await watched.told(2)
    assert watched.levels == [Level.MUTE, Level.ACT]


async def test_a_file_that_keeps_changing_is_read_in_the_end(watched: Watched) -> None:
    """Otherwise a program that keeps touching it would hold back the owner's configuration."""
    await watched.told(1)

    async def keep_writing() -> None:
        for number in range(10**6):
            watched.path.write_text(f'default_permission = "act" # {number}\n')
            await pause(0.02)

    writing = asyncio.create_task(keep_writing())
    try:
        await watched.told(2)
    finally:
        writing.cancel()
        await asyncio.wait([writing])
    assert watched.levels == [Level.MUTE, Level.ACT]
