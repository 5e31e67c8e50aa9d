"""The commands in the project's pages. README's session is played in tests/cluster/test_readme.py."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from cli.main import cli
from tests.docs.pages import PAGES, PROJECT
from tests.support.command_line import conclave
from tests.support.nodes import running_node


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


CARRIED_OUT = (
    (r"make (serve|cluster|test|check|trials)", ".ci/run; the parts of `check` one by one"),
    (r"conclave .*--server \$S( .*)?", "tests/cluster/test_readme.py"),
    (r"conclave-conformance (ws://127\.0\.0\.1:4390|--list).*", "tests/conclave/test_conformance.py"),
    (r"conclave top", "tests/cli/test_top.py"),
    (r"conclave register --server ws://127\.0\.0\.1:4390 --username ann|conclave status", "here"),
)
"""Commands of the pages, and where they are carried out."""
NOT_CARRIED_OUT = (
    (r"conclave .*(chat\.example|fly\.dev|\b10\.0\.0\.).*", "the host is the reader's; the command is parsed above"),
    (r"claude .*", "Claude Code needs an account"),
    (r"pip install .*", "the package has to be published first; tests/tools installs from the locks"),
    (
        r"(docker|helm|kubectl|fly) .*",
        "needs an engine, a cluster or an account; `make deploy-test` tests the files",
    ),
)
"""Commands of the pages that cannot be carried out here, and why."""


@pytest.mark.parametrize("line", LINES)
def test_every_command_is_run_by_a_test_or_has_a_reason_why_not(line: str) -> None:
    """A page's command that nothing runs is one that will stop working."""
    command = line.split(" #", maxsplit=1)[0].strip()
    assert any(re.fullmatch(pattern, command) for pattern, _ in (*CARRIED_OUT, *NOT_CARRIED_OUT)), command


CHECK = "make check"
"""The suite with coverage, and what CI runs beside the suite: `make lint types contracts`."""


def test_ci_runs_readmes_commands_word_for_word() -> None:
    """A similar command in CI would not show that README's own one fails."""
    lines = (PROJECT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    script = {line.split(" ||")[0].removeprefix(".ci/starts ") for line in lines}
    commands = {line.split("#")[0].strip() for line in LINES if line.startswith("make ")}
    assert commands - {CHECK} <= script


async def test_a_user_registers_and_looks_at_the_status(redis_url: str, tmp_path: Path) -> None:
    """As the pages have it, with another address."""
    async with running_node(redis_url) as url:
        register, status = (line for line in LINES if re.fullmatch(CARRIED_OUT[-1][0], line.split(" #")[0].strip()))
        words = shlex.split(register.replace("ws://127.0.0.1:4390", url), comments=True)[1:]
        assert (await conclave(tmp_path, *words)).out.startswith("✓ registered ann/")
        finished = await conclave(tmp_path, *shlex.split(status, comments=True)[1:])
        assert finished.code == 0
        assert url.rstrip("/") in finished.out
