"""What is made from something else in deploy/ is current."""

from pathlib import Path

from deploy.generate.files import generated
from deploy.generate.values import read_values

_DEPLOY = Path(__file__).parents[2] / "deploy"


def test_generated_files_are_current() -> None:
    """A chart with last month's alerts, or a README with last month's values, is how copies end."""
    stale = [str(path) for path, text in generated(_DEPLOY).items() if not path.exists() or path.read_text() != text]
    assert stale == [], "run `make deploy-files`"


def test_nothing_else_lies_where_generated_files_are() -> None:
    """A dashboard that the generator does not know would be in the chart and nowhere else, or the other way round."""
    known = set(generated(_DEPLOY))
    for place in (_DEPLOY / "grafana", _DEPLOY / "helm" / "files" / "dashboards"):
        assert set(place.glob("*.json")) <= known


def test_description_may_have_several_lines() -> None:
    """Comments without the mark, such as a section's title, describe nothing."""
    text = "# a section\na:\n  # -- What b is,\n  # and why.\n  b: 1\n# -- C.\nc: [x]\nd: null\n"
    assert [(value.name, value.description, value.default) for value in read_values(text)] == [
        ("a.b", "What b is, and why.", 1),
        ("c", "C.", ["x"]),
    ]
