"""Installations with some of the package's extras: each verb runs, or names the extra that it needs."""

import ast
import importlib.metadata
import json
import re
import shlex
import sys
import tomllib
from pathlib import Path
from subprocess import DEVNULL, PIPE, Popen

import click
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from cli.lazy import VerbGroup
from cli.main import EXTRAS, cli

ROOT = Path(__file__).parents[2]
PACKAGES = ("conclave", "relay", "bridge", "cli")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DECLARED = {
    extra: {canonicalize_name(Requirement(each).name) for each in requirements}
    for extra, requirements in {"": PROJECT["dependencies"], **PROJECT["optional-dependencies"]}.items()
}
OWNERS = {
    module: {canonicalize_name(name) for name in names}
    for module, names in importlib.metadata.packages_distributions().items()
}
"""For each module at the top of an installed package, the package."""

INSTEAD = {
    "serve": "serve",
    "cluster": "cluster --bind nonsense --data-dir data",
    "top": "top --once --interval 0.2 127.0.0.1:9",
    "bridge": "bridge",
    "completions": "completions bash",
}
"""In place of the example, a command that ends soon, such as by an error in its arguments."""

EXAMINE = """
import importlib.machinery, os, signal, sys, json
missing, commands = map(json.loads, sys.argv[1:])

class Finder(importlib.machinery.PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in missing else super().find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(importlib.machinery.PathFinder)] = Finder
from cli.main import run
for command in commands:
    print(f"\\n$ {json.dumps(command)}", file=sys.stderr, flush=True)
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        os._exit(run(["--config-dir", "config", *command]))
    print(f"\\n= {os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}", file=sys.stderr, flush=True)
"""


def imported() -> set[str]:
    """Return the modules of others, at the top of their packages, that the source imports anywhere."""
    found = set()
    for path in (path for package in PACKAGES for path in (ROOT / package).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                found.add(node.module)
    return {name.partition(".")[0] for name in found} - sys.stdlib_module_names - set(PACKAGES)


def installed_with(*extras: str) -> set[str]:
    """Return the packages that an installation with these extras consists of."""
    found: set[str] = set()
    wanted = [Requirement(each) for extra in extras for each in PROJECT["optional-dependencies"][extra]]
    wanted += map(Requirement, PROJECT["dependencies"])
    while wanted:
        requirement = wanted.pop()
        name = canonicalize_name(requirement.name)
        markers = [{"extra": extra} for extra in (requirement.extras or {""})]
        if name not in found:
            found.add(name)
            inner = map(Requirement, importlib.metadata.requires(name) or ())
            wanted += [
                each for each in inner if each.marker is None or any(each.marker.evaluate(marker) for marker in markers)
            ]
    return found


def every_command() -> list[list[str]]:
    """Return an example of each verb, or of a group's first verb, with a server that refuses connections."""
    found = []
    context = click.Context(cli)
    for name in cli.list_commands(context):
        command = cli.get_command(context, name)
        verb = next(iter(command.commands.values())) if isinstance(command, VerbGroup) else command
        example = INSTEAD.get(name) or verb.example[0].removeprefix("conclave ")  # type: ignore[union-attr]
        found.append(shlex.split(re.sub(r"wss?://[\w.:]+", "ws://127.0.0.1:9", example)))
    return found


def outcomes(folder: Path, *extras: str) -> dict[str, tuple[int, str]]:
    """Run every verb in an installation with these extras: exit status and standard error, by the verb's words."""
    present = installed_with(*extras)
    missing = [module for module, owners in OWNERS.items() if not owners & present and module not in PACKAGES]
    words = [sys.executable, "-c", EXAMINE, json.dumps(missing), json.dumps(every_command())]
    environment = {"PYTHONPATH": str(ROOT), "HOME": str(folder), "PATH": "/usr/bin:/bin"}
    with Popen(words, stdin=DEVNULL, stdout=DEVNULL, stderr=PIPE, text=True, cwd=folder, env=environment) as process:
        _, errors = process.communicate(timeout=110)
    found = re.findall(r"^\$ (.*)\n((?s:.*?))^= (-?\d+)$", errors, re.MULTILINE)
    return {" ".join(json.loads(command)): (int(code), error) for command, error, code in found}


@pytest.mark.parametrize(
    "extras",
    [
        pytest.param((), id="none", marks=pytest.mark.long),
        pytest.param(("client",), id="client", marks=pytest.mark.long),
        pytest.param(("server",), id="server"),
    ],
)
def test_every_verb_runs_or_names_the_extra_that_it_needs(tmp_path: Path, extras: tuple[str, ...]) -> None:
    """And it never names one that is installed, which would send the user in a circle."""
    found = outcomes(tmp_path, *extras)
    assert len(found) == len(every_command())
    refused = {}
    for command, (code, error) in found.items():
        assert "internal error" not in error, command
        assert "Traceback" not in error, command
        if "which is not installed" in error:
            assert code == 1
            refused[command.split()[0]] = re.findall(r"pip install 'conclave-cli\[(\w+)\]'", error)
    assert all(len(named) == 1 and named[0] not in extras for named in refused.values()), refused
    assert refused.get("serve") == (None if "server" in extras else ["server"])
    assert refused.get("send") == (None if "client" in extras else ["client"])


def test_every_import_belongs_to_one_installation() -> None:
    """Every import of the source comes with the package itself, or with one extra whose row names it."""
    rows = [module for modules in EXTRAS.values() for module in modules]
    assert len(rows) == len(set(rows))
    modules = imported()
    base = {module for module in modules if OWNERS[module] & DECLARED[""]}
    assert modules - base == set(rows)
    for extra, row in EXTRAS.items():
        for module in row:
            assert OWNERS[module] & DECLARED[extra], f"{module} does not come with {extra}"
