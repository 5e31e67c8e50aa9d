"""Watermarks: what a session was shown is known after a restart, and no file of it is ever a reason not to start."""

import logging
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.session.watermarks import KEPT_CHANNELS, KEPT_SECONDS, Key, Watermark, Watermarks, server_key

ANN = Key("cluster-1", "ann/laptop/main")
NOW = int(time.time())  # as the file system has it


class Clock:
    def __init__(self) -> None:
        self.now = float(NOW)

    def __call__(self) -> float:
        return self.now


def files(directory: Path) -> list[Path]:
    return sorted((directory / "watermarks").iterdir())


def test_saved_watermarks_are_there_after_a_restart(tmp_path: Path) -> None:
    """For this session at this server, and for no other."""
    before = Watermarks(tmp_path / "state", Clock())
    before.note(ANN, "ops", "1700000000000-0", ts=1_700_000_000_000, protocol=2)
    before.note(ANN, "ops", "1700000000001-0", ts=1_700_000_000_001, protocol=2)
    before.note(ANN, "dev", "1600000000000-7", ts=1_600_000_000_000, protocol=2)
    assert before.get(ANN, "dev") is not None
    before.save()
    after = Watermarks(tmp_path / "state", Clock())
    assert after.get(ANN, "ops") == Watermark("1700000000001-0", 1_700_000_000_001, 2, NOW)
    assert after.get(ANN, "other") is None
    assert after.get(Key("cluster-2", ANN.session), "ops") is None
    assert after.get(Key(ANN.server, "ann/laptop/main-2"), "ops") is None


def test_unsaved_watermarks_are_not_written(tmp_path: Path) -> None:
    """The caller decides how often the disk is written; a save without a change writes nothing."""
    marks = Watermarks(tmp_path, Clock())
    marks.save()
    marks.note(ANN, "ops", "1-0", ts=1, protocol=2)
    assert list(tmp_path.iterdir()) == []
    marks.save()
    (file,) = files(tmp_path)
    file.unlink()
    marks.save()
    assert files(tmp_path) == []


def test_bridges_of_different_handles_do_not_overwrite_each_other(tmp_path: Path) -> None:
    """A machine runs many at once, in the same state directory."""
    keys = [Key(server, f"ann/laptop/{handle}") for server in ("one", "two") for handle in ("main", "main-2", "x/y")]
    bridges = [Watermarks(tmp_path, Clock()) for _ in keys]
    for bridge, key in zip(bridges, keys, strict=True):
        assert bridge.get(key, "ops") is None
    for number, (bridge, key) in enumerate(zip(bridges, keys, strict=True)):
        bridge.note(key, "ops", str(number), ts=number, protocol=2)
    for bridge in bridges:
        bridge.save()
    after = Watermarks(tmp_path, Clock())
    assert [after.get(key, "ops") for key in keys] == [Watermark(str(n), n, 2, NOW) for n in range(len(keys))]


def test_only_the_user_may_read_them(tmp_path: Path) -> None:
    """They name channels."""
    marks = Watermarks(tmp_path, Clock())
    marks.note(ANN, "ops", "1-0", ts=1, protocol=2)
    marks.save()
    (file,) = files(tmp_path)
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    "content",
    [b"", b"\x00" * 100, b"{", b"[]", b'{"channels": {"ops": 3}}', b"\xff\xfe", b"[" * 100_000, b'{"a": "\xff"}'],
)
def test_a_broken_file_is_reported_once_and_counts_as_none(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    """Something is shown twice, and that is all; the next save mends it."""
    first = Watermarks(tmp_path, Clock())
    first.note(ANN, "ops", "1-0", ts=1, protocol=2)
    first.save()
    (file,) = files(tmp_path)
    file.write_bytes(content)
    marks = Watermarks(tmp_path, Clock())
    assert marks.get(ANN, "ops") is None
    assert marks.get(ANN, "dev") is None
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert str(file) in caplog.text
    marks.note(ANN, "ops", "2-0", ts=2, protocol=2)
    marks.save()
    assert Watermarks(tmp_path, Clock()).get(ANN, "ops") == Watermark("2-0", 2, 2, NOW)
    assert len(caplog.records) == 1


def test_a_directory_that_cannot_be_written_is_reported_once_and_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A full or read-only disk must neither end the bridge nor fill its log."""
    place = tmp_path / "state"
    marks = Watermarks(place, Clock())
    marks.note(ANN, "ops", "1-0", ts=1, protocol=2)
    place.write_text("in the way")
    marks.save()
    marks.save()
    assert len(caplog.records) == 1
    assert marks.get(ANN, "ops") is not None
    place.unlink()
    marks.save()
    assert Watermarks(place, Clock()).get(ANN, "ops") == Watermark("1-0", 1, 2, NOW)
    place.joinpath("watermarks").rename(tmp_path / "away")
    place.joinpath("watermarks").write_text("in the way again")
    marks.note(ANN, "ops", "2-0", ts=2, protocol=2)
    marks.save()
    assert len(caplog.records) == 2


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is replaced as a whole or not at all."""
    marks = Watermarks(tmp_path, Clock())
    marks.note(ANN, "ops", "1-0", ts=1, protocol=2)
    marks.save()
    marks.note(ANN, "ops", "2-0", ts=2, protocol=2)

    def fail(_self: Path, _target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", fail)
    marks.save()
    assert len(files(tmp_path)) == 1
    assert Watermarks(tmp_path, Clock()).get(ANN, "ops") == Watermark("1-0", 1, 2, NOW)


def test_a_channel_name_that_cannot_be_written_costs_no_crash(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Half a character is no name, but a server may send anything."""
    marks = Watermarks(tmp_path, Clock())
    marks.note(ANN, "half\ud800", "1-0", ts=1, protocol=2)
    marks.save()
    assert len(caplog.records) == 1


def test_old_watermarks_are_forgotten(tmp_path: Path) -> None:
    """No server keeps what is behind them. Those that were noted again stay."""
    clock = Clock()
    marks = Watermarks(tmp_path, clock)
    marks.note(ANN, "old", "1-0", ts=1, protocol=2)
    marks.note(ANN, "kept", "1-0", ts=1, protocol=2)
    marks.save()
    clock.now += KEPT_SECONDS - 1
    marks.note(ANN, "kept", "2-0", ts=2, protocol=2)
    marks.save()
    clock.now += 1
    after = Watermarks(tmp_path, clock)
    assert after.get(ANN, "old") is None
    assert after.get(ANN, "kept") is not None


def test_the_number_of_channels_is_bounded(tmp_path: Path) -> None:
    """Those that were noted last stay."""
    clock = Clock()
    marks = Watermarks(tmp_path, clock)
    for number in range(KEPT_CHANNELS + 5):
        clock.now += 1
        marks.note(ANN, f"c{number}", "1-0", ts=1, protocol=2)
    clock.now += 1
    marks.note(ANN, "c0", "2-0", ts=2, protocol=2)
    marks.save()
    after = Watermarks(tmp_path, clock)
    kept = [number for number in range(KEPT_CHANNELS + 5) if after.get(ANN, f"c{number}") is not None]
    assert kept == [0, *range(6, KEPT_CHANNELS + 5)]


def test_unused_files_are_removed(tmp_path: Path) -> None:
    """A handle that was used once leaves a file, a killed bridge a draft. Other files beside them are not touched."""
    clock = Clock()
    marks = Watermarks(tmp_path, clock)
    for key in (ANN, Key("cluster-1", "ann/laptop/once")):
        marks.note(key, "ops", "1-0", ts=1, protocol=2)
    marks.save()
    used, once = files(tmp_path)
    draft = used.with_suffix(".123.tmp")
    other = tmp_path / "config.json"
    for file in (draft, other):
        file.write_text("{}")
    for file in (once, draft, other):
        os.utime(file, (0, NOW - KEPT_SECONDS - 1))
    os.utime(used, (0, NOW))
    Watermarks(tmp_path, clock)
    assert files(tmp_path) == [used]
    assert other.exists()


def test_a_bridge_that_is_killed_while_it_writes_leaves_a_whole_file(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """And a concurrent reader never sees a part of it."""
    program = (
        "import sys, pathlib\n"
        "from bridge.session.watermarks import Key, Watermarks\n"
        "marks = Watermarks(pathlib.Path(sys.argv[1]))\n"
        "key = Key('cluster-1', 'ann/laptop/main')\n"
        "for turn in range(10**9):\n"
        "    for number in range(500):\n"
        "        marks.note(key, f'c{number}', str(turn), ts=turn, protocol=2)\n"
        "    marks.save()\n"
        "    print(turn, flush=True)\n"
    )
    for _ in range(5):
        with subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            for _ in range(20):
                assert writer.stdout.readline()
                seen = Watermarks(tmp_path)
                marks = [seen.get(ANN, f"c{number}") for number in range(500)]
                assert len({mark.position for mark in marks if mark is not None}) == 1
                assert None not in marks
            writer.kill()
        last = Watermarks(tmp_path).get(ANN, "c0")
        assert last is not None
    assert caplog.records == []


# --- What they mean ---


@given(st.text(max_size=30), st.integers(0, 2**53), st.sampled_from([1, 2]))
def test_a_position_counts_for_its_own_version_of_the_protocol(position: str, ts: int, protocol: int) -> None:
    """Under the other one reading starts a millisecond before its time: nothing is skipped."""
    mark = Watermark(position, ts, protocol, NOW)
    assert mark.mark(protocol) == position
    assert mark.mark(3 - protocol) == f"@{ts - 1}"


def test_a_server_is_known_by_its_id_or_else_by_its_url() -> None:
    """An original server of some age has no id."""
    assert server_key("01HX", "wss://a.example/") == "01HX"
    assert server_key(None, "WSS://a.example/") == server_key("", "wss://a.example:443") == "wss://a.example"
    assert server_key("id\udcff\n", "wss://a") == r"id\udcff\n"
