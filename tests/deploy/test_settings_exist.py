"""The variables in deploy/ and docs/operations.md are those that a node reads: any other has no effect."""

import re
from pathlib import Path

from cli.verbs.serve import command

_PROJECT = Path(__file__).parents[2]
_SETTING = re.compile(r"\bCONCLAVE_[A-Z_]*[A-Z]\b")


def _read() -> set[str]:
    """The variables that the code reads: those of flags, and those that are looked up by name."""
    sources = [path.read_text() for folder in ("relay", "cli") for path in (_PROJECT / folder).rglob("*.py")]
    return {name for source in sources for name in re.findall(rf'"({_SETTING.pattern})"', source)}


def test_every_variable_is_read() -> None:
    """With a misspelt variable the drain has its default length, and sessions are cut off."""
    places = [_PROJECT / "docs" / "operations.md"]
    places += [path for path in (_PROJECT / "deploy").rglob("*") if path.suffix in {".yaml", ".toml", ".tpl", ".md"}]
    places.append(_PROJECT / "deploy" / "Dockerfile")
    named = {name for path in places for name in _SETTING.findall(path.read_text())}
    assert named - _read() == set()


def test_every_flag_in_the_manual_exists() -> None:
    """A flag that is copied from the manual must work."""
    text = (_PROJECT / "docs" / "operations.md").read_text()
    explained = set(re.findall(r"`(--[a-z-]+)`", text))
    flags = {flag for parameter in command.params for flag in parameter.opts}
    assert explained - flags == set()
