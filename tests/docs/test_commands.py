"""The commands in the project's pages. README's session is played in tests/cluster/test_readme.py."""

import re
import shlex
from collections.abc import Iterator

import click
import pytest

from cli.main import cli
from tests.docs.pages import PAGES, PROJECT


def command_lines() -> Iterator[str]:
    """Every command in a console block, as one line."""
    for page in PAGES:
        for block in re.findall(r"^```console\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
            for line in re.sub(r"\\\n\s*", "", block).splitlines():
                if line.startswith("$ "):
                    yield line.removeprefix("$ ")


LINES = sorted(set(command_lines()))


@pytest.mark.parametrize("line", [line for line in LINES if line.startswith("conclave ")])
def test_the_command_line_takes_a_command_as_it_stands_there(line: str) -> None:
    """A page may still name a verb or a flag that was renamed. The command is parsed, not carried out."""
    words = shlex.split(line, comments=True)[1:]
    command: click.Command = cli
    context: click.Context | None = None
    while isinstance(command, click.Group):
        context = command.make_context("conclave", words, parent=context)
        name, found, words = command.resolve_command(context, [*context._protected_args, *context.args])
        assert found is not None, name
        command = found
    command.make_context(command.name, words, parent=context)


@pytest.mark.parametrize("line", [line for line in LINES if line.startswith("make ")])
def test_make_has_the_target(line: str) -> None:
    """CI runs the targets themselves."""
    makefile = (PROJECT / "Makefile").read_text(encoding="utf-8")
    for target in (word for word in shlex.split(line, comments=True)[1:] if "=" not in word):
        assert re.search(rf"^{target}:.*## ", makefile, re.MULTILINE), target


def test_the_examples_are_found() -> None:
    """A change of the pages' form must not leave the tests above without a case."""
    assert {"conclave channel create --server $S ops", "conclave status", "make test"} <= {
        line.split("#")[0].strip() for line in LINES
    }
