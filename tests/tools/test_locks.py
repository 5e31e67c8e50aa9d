"""The lock files, which `make lock` writes."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def locked(name: str) -> dict[str, str]:
    """Return the entry of each package in a lock: version, markers and hashes."""
    entries = re.split(r"\n(?=[a-z])", (ROOT / name).read_text())
    return {entry.split("==")[0]: entry.strip() for entry in entries if "==" in entry}


@pytest.mark.parametrize("name", ["requirements-serve.lock", "requirements-uv.lock"])
def test_what_serves_is_what_is_tested(name: str) -> None:
    """The small locks are parts of the large one, so that `make test` after `make serve` changes no package."""
    assert locked(name).items() <= locked("requirements.lock").items()


def test_the_serving_lock_has_what_a_relay_and_its_clients_import() -> None:
    """A dependency that is only in pyproject.toml would be missing after `make serve`."""
    extras = PROJECT["optional-dependencies"]
    declared = [*PROJECT["dependencies"], *extras["client"], *extras["server"], *extras["standalone"]]
    names = {re.split(r"[^\w.-]", each)[0] for each in declared} - {PROJECT["name"]}
    assert names <= locked("requirements-serve.lock").keys()


def test_the_serving_lock_is_small() -> None:
    """The first run waits for each of its packages; development and fuzzing need twice as many."""
    assert not {"atheris", "mypy", "pytest", "opentelemetry-sdk"} & locked("requirements-serve.lock").keys()
    assert "atheris" not in locked("requirements.lock")
