"""The machine's key: one file, one key, no half-written state."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl.signing import VerifyKey

from conclave import base64url
from conclave.errors import InvalidKey, KeyFileError
from conclave.machine import keys
from conclave.machine.keys import MachineKey, create_or_load, load
from conclave.public_key import parse_public_key


def test_the_file_holds_43_characters_for_its_owner_only(tmp_path: Path) -> None:
    """Original clients read the same file; other users of the machine may not."""
    path = tmp_path / "new" / "key"
    key = create_or_load(path)
    content = path.read_bytes()
    assert len(content) == 43
    assert not content.endswith(b"\n")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [entry.name for entry in path.parent.iterdir()] == ["key"]
    assert load(path).public_key == key.public_key


def test_a_key_file_of_the_original_is_read_with_space_around_it(tmp_path: Path) -> None:
    """Editors add a newline; the seed of this vector and its public key are those of RFC 8032, test 1."""
    path = tmp_path / "key"
    path.write_text("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A\n")
    assert load(path).public_key.hex() == "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"


def test_an_existing_key_is_never_replaced(tmp_path: Path) -> None:
    """Servers know the key; another one in its place locks the user out."""
    path = tmp_path / "key"
    first = create_or_load(path)
    assert create_or_load(path).public_key == first.public_key


def test_losing_the_race_to_create_yields_the_winners_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the look and the creation another command may have created the file."""
    path = tmp_path / "key"
    winner = MachineKey.generate()
    real = keys._create

    def beaten(target: Path, content: bytes) -> None:
        target.write_text(winner.seed_text())
        real(target, content)

    monkeypatch.setattr(keys, "_create", beaten)
    assert create_or_load(path).public_key == winner.public_key
    assert [entry.name for entry in tmp_path.iterdir()] == ["key"]


def test_first_commands_at_once_print_one_key(tmp_path: Path) -> None:
    """Processes that all find no file: each prints the key that stays."""
    program = (
        "import sys, pathlib; from conclave.machine.keys import create_or_load; sys.stdin.read();"
        "print(create_or_load(pathlib.Path(sys.argv[1])).public_text)"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "key")]
    processes = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(8)]
    for process in processes:
        assert process.stdin is not None
        process.stdin.close()  # the starting signal
        process.stdin = None
    printed = {process.communicate(timeout=60)[0].decode().strip() for process in processes}
    assert printed == {load(tmp_path / "key").public_text}


def test_a_failed_write_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk must not leave an empty file that later reads as a broken key."""

    def fail(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(KeyFileError, match=r"failed to write keyfile .*: No space left on device"):
        create_or_load(tmp_path / "key")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"failed to read keyfile `.*` \(run `conclave key` first\): No such file or directory"),
        ("", "keyfile does not contain a 32-byte seed: `.*` holds 0 bytes"),
        ("AAAA", "keyfile does not contain a 32-byte seed: `.*` holds 3 bytes"),
        ("not base64!", "malformed key or signature: .*"),
        ("\x00\xff", "malformed key or signature: .*"),
    ],
)
def test_a_useless_key_file_is_refused_with_its_reason(tmp_path: Path, content: str | None, message: str) -> None:
    """The text has the remedy, and never quotes the content: it may be a secret with a typo."""
    path = tmp_path / "key"
    if content is not None:
        path.write_text(content, encoding="latin-1")
    with pytest.raises(KeyFileError, match=f"^{message}") as caught:
        load(path)
    assert content is None or len(content) < 4 or content not in str(caught.value)


def test_a_signature_covers_exactly_the_message() -> None:
    """The login signs the server's nonce and nothing around it."""
    key = MachineKey.generate()
    assert VerifyKey(key.public_key).verify(b"nonce", key.sign(b"nonce")) == b"nonce"


@given(st.binary(min_size=32, max_size=32))
def test_a_public_key_reads_back_from_its_text(key: bytes) -> None:
    """The printed form of one machine is accepted by another, with the space that copying adds."""
    text = base64url.encode(key)
    assert len(text) == 43
    assert parse_public_key(f" \t{text}\n") == key


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "public key must be 32 bytes"),
        ("AAAA", "public key must be 32 bytes"),
        ("A" * 44, "public key must be 32 bytes"),
        ("A" * 43 + "=", "without padding"),
        ("+" * 43, "expected base64url"),
        ("A" * 21 + " " + "A" * 21, "expected base64url"),
        ("A" * 42 + "B", "the last character carries extra bits"),
        ("A" * 45, "truncated base64url"),
        ("é" * 43, "expected base64url"),
    ],
)
def test_text_that_is_no_public_key_is_refused(text: str, reason: str) -> None:
    """A mistyped key would be enrolled and never log in; a second spelling of a key would be a second key."""
    with pytest.raises(InvalidKey, match=f"^malformed key or signature: .*{reason}"):
        parse_public_key(text)


def test_a_seed_has_32_bytes() -> None:
    """Anything else is no key."""
    with pytest.raises(InvalidKey, match="seed must be 32 bytes"):
        MachineKey(b"short")
