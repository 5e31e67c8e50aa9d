"""The generated files of deploy/ are current."""

from pathlib import Path

from deploy.generate.files import generated
from deploy.generate.values import read_values

_DEPLOY = Path(__file__).parents[2] / "deploy"


def test_generated_files_are_current() -> None:
    """A copy that is not compared with its source becomes outdated."""
    stale = [str(path) for path, text in generated(_DEPLOY).items() if not path.exists() or path.read_text() != text]
    assert stale == [], "run `make deploy-files`"


def test_no_other_file_is_in_the_folders_of_generated_files() -> None:
    """A dashboard that the generator does not know would be in only one of the two folders."""
    known = set(generated(_DEPLOY))
    for place in (_DEPLOY / "grafana", _DEPLOY / "helm" / "files" / "dashboards"):
        assert set(place.glob("*.json")) <= known


def test_description_may_have_several_lines() -> None:
    """Comments without the mark, such as a section's title, are no descriptions."""
    text = "# a section\na:\n  # -- What b is,\n  # and why.\n  b: 1\n# -- C.\nc: [x]\nd: null\n"
    assert [(value.name, value.description, value.default) for value in read_values(text)] == [
        ("a.b", "What b is, and why.", 1),
        ("c", "C.", ["x"]),
    ]
