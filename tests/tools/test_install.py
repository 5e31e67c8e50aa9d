"""The installation that every `make` target begins with, from locks and an index that are directories here."""

import fcntl
import hashlib
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
INSTALL = ROOT / "tools" / "install.py"
UV = Path(sys.executable).with_name("uv")
ENVIRONMENT = {**os.environ, "PIP_NO_INDEX": "1"}
"""pip finds no uv on an index, so that a test without a network is as good as one with it."""


@pytest.fixture
def venv(tmp_path: Path) -> Path:
    """The place of an environment that has uv already, as after any earlier `make`."""
    place = tmp_path / "venv"
    (place / "bin").mkdir(parents=True)
    (place / "bin" / "uv").symlink_to(UV)
    return place


def lock_of(index: Path, version: str, digest: str | None = None) -> Path:
    """Return a lock of the package `tiny`, which is in the index."""
    index.mkdir(exist_ok=True)
    info = f"tiny-{version}.dist-info"
    wheel = index / f"tiny-{version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("tiny.py", f"version = {version!r}\n")
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: tiny\nVersion: {version}\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", f"tiny.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n")
    digest = digest or hashlib.sha256(wheel.read_bytes()).hexdigest()
    lock = index.with_name("requirements.lock")
    lock.write_text(f"--no-index\n--find-links {index}\ntiny=={version} --hash=sha256:{digest}\n")
    return lock


def install(venv: Path, lock: Path, *, python: Path | str = sys.executable) -> subprocess.CompletedProcess[str]:
    words = [str(python), str(INSTALL), str(venv), str(lock)]
    return subprocess.run(words, capture_output=True, text=True, env=ENVIRONMENT, timeout=100, check=False)


def installed(venv: Path) -> str:
    """Return the version of `tiny` that a program in the environment imports.

    Without compiled code: that of the version before would do for a file of the same size and second.
    """
    words = [str(venv / "bin" / "python"), "-B", "-c", "import tiny; print(tiny.version)"]
    return subprocess.run(words, capture_output=True, text=True, timeout=60, check=True).stdout.strip()


def test_an_environment_follows_its_lock(venv: Path, tmp_path: Path) -> None:
    """The first run makes it, and one after a change of the lock brings it up to date."""
    for version in ("1.0", "1.0", "2.0"):
        done = install(venv, lock_of(tmp_path / "index", version))
        assert (done.returncode, done.stderr) == (0, "")
        assert installed(venv) == version


@pytest.mark.long
def test_an_interrupted_installation_starts_over(venv: Path, tmp_path: Path) -> None:
    """Half a package looks like a whole one to an installer, so nothing of such an environment is kept.

    Not even its interpreter, which is the one that runs this where the environment is on PATH.
    """
    lock = lock_of(tmp_path / "index", "1.0")
    assert install(venv, lock).returncode == 0
    (module,) = venv.glob("lib/python*/site-packages/tiny.py")
    module.unlink()
    (venv / ".installed").touch()
    assert install(venv, lock).returncode == 0
    assert not module.exists(), "an installer notices that itself, and this test shows nothing"
    (venv / ".incomplete").touch()
    assert install(venv, lock, python=venv / "bin" / "python").returncode == 0
    assert installed(venv) == "1.0"
    assert not (venv / ".installed").exists(), "make would believe that all other packages are there"
    assert not (venv / ".incomplete").exists()


@pytest.mark.long
def test_an_environment_without_its_interpreter_is_made_anew(venv: Path, tmp_path: Path) -> None:
    """An update of the system removes the interpreter that the environment points to."""
    lock = lock_of(tmp_path / "index", "1.0")
    (venv / "bin" / "python").symlink_to(tmp_path / "removed")
    assert install(venv, lock).returncode == 0
    assert installed(venv) == "1.0"


@pytest.mark.long
def test_pip_takes_over_where_uv_fails(venv: Path, tmp_path: Path) -> None:
    """Only pip's configuration may name the index that this machine can reach."""
    lock = lock_of(tmp_path / "index", "1.0")
    version = subprocess.run([UV, "--version"], capture_output=True, text=True, check=True).stdout
    (venv / "bin" / "uv").unlink()
    (venv / "bin" / "uv").write_text(f'#!/bin/sh\n[ "$1" = --version ] && echo "{version}"\n')
    (venv / "bin" / "uv").chmod(0o755)
    done = install(venv, lock)
    assert (done.returncode, done.stderr) == (0, "uv has failed; pip takes over\n")
    assert installed(venv) == "1.0"


@pytest.mark.long
def test_a_failed_installation_says_so_and_is_repeated(venv: Path, tmp_path: Path) -> None:
    """The index may be out of reach, or have another file than the one that was locked."""
    lock = lock_of(tmp_path / "index", "1.0", "0" * 64)
    done = install(venv, lock)
    assert done.returncode == 1
    assert f"The packages of {lock} are not installed" in done.stderr
    assert "Traceback" not in done.stderr
    assert (venv / ".incomplete").exists()


def test_two_installations_run_one_after_the_other(venv: Path, tmp_path: Path) -> None:
    """`make serve` in one terminal and `make test` in another, both in a fresh clone."""
    lock = lock_of(tmp_path / "index", "1.0")
    words = [sys.executable, str(INSTALL), str(venv), str(lock)]
    with (venv / ".installing").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with subprocess.Popen(words, stdout=subprocess.PIPE, env=ENVIRONMENT, text=True) as second:
            assert second.stdout is not None
            assert second.stdout.readline().startswith("waiting for another installation")
            assert not (venv / "bin" / "python").exists()
            fcntl.flock(held, fcntl.LOCK_UN)
            second.communicate(timeout=60)
    assert second.returncode == 0
    assert installed(venv) == "1.0"
