"""The walkthrough: every function in its tables is in the file beside it."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "walkthrough.md").read_text()
STEPS = re.findall(r"^\| `([^`]+)` \|(?: `([^`]+)`)? \|", PAGE, re.MULTILINE)
FILES = sorted(set(re.findall(r"`((?:relay|conclave|cli|tests)/[^`]+\.(?:py|lua))`", PAGE)))


def definitions(file: Path) -> set[str]:
    """Return the functions of a module, and the methods of its classes as `Class.method`."""

    def named(body: list[ast.stmt], prefix: str = "") -> Iterator[str]:
        for node in body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield prefix + node.name
            if isinstance(node, ast.ClassDef):
                yield from named(node.body, f"{node.name}.")

    return set(named(ast.parse(file.read_text()).body))


@pytest.mark.parametrize(("file", "function"), STEPS)
def test_every_step_is_a_function_of_its_file(file: str, function: str) -> None:
    """A reader who follows the page finds each step with one search."""
    if file.endswith(".lua"):
        assert not function or f"{function} = function" in (ROOT / file).read_text()
    else:
        assert function in definitions(ROOT / file)


@pytest.mark.parametrize("file", FILES)
def test_every_file_exists(file: str) -> None:
    """Also those that the text names."""
    assert (ROOT / file).is_file()


def test_the_tables_are_read() -> None:
    """Two ways of some ten steps each, one of them there and back."""
    assert len(STEPS) > 30
