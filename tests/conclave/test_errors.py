"""The tree of exceptions in `conclave.errors` is complete, and it is the truth."""

import importlib
import inspect
import pkgutil
import re

import pytest

import bridge
import cli
import conclave
import relay
from conclave import errors
from conclave.errors import Code, ConclaveError, Refusal, in_words

_LINE = re.compile(r"(?P<branches>[│├└─ ]*)(?P<name>[A-Z]\w+)(?:  .*?(?:\((?P<module>[a-z_.]+)\))?)?")
_STEP = len("├── ")


def drawn() -> dict[str, tuple[str, str]]:
    """Return the exceptions of the drawing: by name the parent and the module."""
    tree: dict[str, tuple[str, str]] = {}
    path: list[str] = []
    for line in inspect.cleandoc(errors.__doc__ or "").splitlines():
        found = _LINE.fullmatch(line)
        if found is None:
            continue
        depth = len(found["branches"]) // _STEP
        path[depth:] = [found["name"]]
        if depth:
            tree[found["name"]] = (path[-2], found["module"] or "conclave.errors")
    return tree


def defined() -> dict[str, tuple[str, str]]:
    """Return the public exceptions of all modules: by name the parent and the module."""
    for package in (bridge, cli, conclave, relay):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)
    pending, found = [ConclaveError], {}
    while pending:
        for kind in pending.pop().__subclasses__():
            pending.append(kind)
            # A test's own exceptions, and those that do not leave their module, are not part of the tree.
            if kind.__module__.split(".")[0] != "tests" and not kind.__name__.startswith("_"):
                assert kind.__base__ is not None
                found[kind.__name__] = (kind.__base__.__name__, kind.__module__)
    return found


def test_the_drawing_is_the_tree_of_exceptions() -> None:
    """A reader sees at once what may be raised, what is caught with it, and where it is defined."""
    assert drawn() == defined()


@pytest.mark.parametrize(
    ("refusal", "text"),
    [
        (Refusal(Code.NOT_FOUND, "no channel"), "not found: no channel"),
        (Refusal(Code.CONFLICT, "taken"), "conflict: taken"),
        (Refusal(Code.VERSION, "incompatible"), "incompatible"),
    ],
)
def test_a_refusal_is_shown_with_its_kind(refusal: Refusal, text: str) -> None:
    """Except one for another version, whose sentence says all."""
    assert in_words(refusal) == text
