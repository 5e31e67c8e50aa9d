"""The table of mutants fits the code, and a trial finds out if a suite notices a defect."""

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from tests.mutants.mutant import Mutant, Verdict, copied, occurrences, trial
from tests.mutants.table import MUTANTS

ROOT = Path(__file__).parents[2]
ADD = Mutant("An addition subtracts", "sums.py", "one + other", "one - other", ("test_sums.py",))


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.defect)
def test_each_mutant_fits_the_code(mutant: Mutant) -> None:
    """A row whose text is not in the code tests nothing: a change of that code brings the row up to date."""
    assert occurrences(mutant, ROOT) == 1
    for test in mutant.tests:
        path, _, name = test.partition("::")
        assert f"def {name.partition('[')[0]}" in (ROOT / path).read_text()


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program of one line, and a suite of one test, which needs no plugin."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    (tmp_path / "sums.py").write_text("def total(one, other):\n    return one + other  # never minus\n")
    (tmp_path / "test_sums.py").write_text("from sums import total\n\ndef test_it():\n    assert total(2, 1) == 3\n")
    (tmp_path / "ignored").touch()
    (tmp_path / ".gitignore").write_text("ignored\n")
    subprocess.run(["git", "init", "-q", tmp_path], check=True)  # noqa: S607
    return tmp_path


@pytest.mark.parametrize(
    ("changes", "verdict", "detail"),
    [
        ({}, "killed", "test_sums.py::test_it"),
        ({"old": "never", "new": "not"}, "SURVIVED", "test_sums.py"),
        ({"old": "no such text"}, "does not apply", "0 times"),
        ({"old": "one"}, "does not apply", "2 times"),
        ({"path": "absent.py"}, "does not apply", "0 times"),
        ({"new": "one +"}, "invalid", "pytest ended with"),
    ],
)
def test_the_verdict_of_a_trial(tree: Path, changes: dict[str, object], verdict: Verdict, detail: str) -> None:
    """Only a failing test kills a mutant: a module that cannot be imported proves nothing about the suite."""
    with copied(tree) as copy:
        assert not (copy / "ignored").exists()
        outcome = trial(msgspec.structs.replace(ADD, **changes), copy, Path(sys.executable))
        assert outcome.verdict == verdict, outcome
        assert detail in outcome.detail
        assert (copy / "sums.py").read_text() == (tree / "sums.py").read_text(), "the defect is taken out again"
