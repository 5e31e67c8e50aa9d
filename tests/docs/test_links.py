"""Links between the project's pages, and the files that the pages name."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.pages import PAGES, PROJECT


def prose(page: Path) -> str:
    """The page without its code blocks, in which brackets and number signs mean something else."""
    return re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """The anchors that Markdown renderers give the page's headings."""
    titles = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.strip().lower()).replace(" ", "-") for title in titles}


def links() -> Iterator[tuple[Path, str]]:
    """Every relative link, with its page."""
    for page in PAGES:
        for target in re.findall(r"\]\(([^)]+)\)", prose(page)):
            if not re.match(r"[a-z]+:", target):
                yield page, target


@pytest.mark.parametrize(("page", "target"), list(links()), ids=lambda value: getattr(value, "name", value))
def test_a_link_has_a_target(page: Path, target: str) -> None:
    """Pages and headings are renamed, and a link to the top of a page is easily overlooked."""
    path, _, anchor = target.partition("#")
    found = page.parent / path if path else page
    assert found.exists()
    if anchor:
        assert anchor in anchors(found)


def named_files() -> set[str]:
    """Every file of the project that some page names: with its folder, or a module or script by its name alone."""
    top = "|".join(path.name for path in PROJECT.iterdir() if path.is_dir() and not path.name.startswith("."))
    pattern = rf"`((?:{top})/[\w./-]*(?:\.\w+|/)|[\w/-]+\.(?:py|lua))`"
    return {name for page in PAGES for name in re.findall(pattern, prose(page))}


@pytest.mark.parametrize("name", sorted(named_files()))
def test_a_named_file_exists(name: str) -> None:
    """A page about a module that was renamed sends its reader searching."""
    folders = ["relay", "bridge", "conclave", "cli", "bench", "deploy", "tests"]
    found = (PROJECT / name).exists() or any(any((PROJECT / folder).rglob(name)) for folder in folders)
    assert found or name == "client.py", "docs/protocol.md prints that one"
