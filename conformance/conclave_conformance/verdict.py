"""The results of a check: failures, skips, and their texts."""

import json
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from conclave_conformance.company import Scene

Json = dict[str, Any]

_SHOWN = 400
"""The length, in characters, at which a verdict cuts a value off."""


class Failed(Exception):
    """The server does not do what the page says."""

    def __init__(self, expected: str, got: object) -> None:
        self.expected = expected
        self.got = got if isinstance(got, str) else shown(got)
        super().__init__(f"expected {expected}; got {self.got}")


class Skipped(Exception):
    """This cannot be checked here; the text says why."""


class Check(msgspec.Struct, frozen=True):
    """`name` is `group.what`, `promise` the sentence that is checked, `heading` where the page says it."""

    name: str
    heading: str
    promise: str
    run: "Callable[[Scene], Awaitable[None]]"


Run = Callable[["Scene"], Awaitable[None]]


class Section:
    """Collects the checks of one part of the page: `@section.check("Heading")` on a function of a Scene.

    The function's name becomes the check's, the first line of its docstring the promise.
    """

    def __init__(self, group: str) -> None:
        self._group = group
        self.checks: list[Check] = []

    def check(self, heading: str) -> Callable[[Run], Run]:
        def add(run: Run) -> Run:
            name = f"{self._group}.{run.__name__.replace('_', '-')}"
            self.checks.append(Check(name, heading, (run.__doc__ or "").partition("\n")[0], run))
            return run

        return add


def shown(value: object) -> str:
    """Write a value as JSON, cut if it is long."""
    text = json.dumps(value, ensure_ascii=False, default=repr)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}… ({len(text)} characters)"


def expect(condition: object, expected: str, got: object) -> None:
    """Raise Failed unless the condition holds."""
    if not condition:
        raise Failed(expected, got)


def same(got: object, expected: object, what: str) -> None:
    """Raise Failed unless the two are equal; `true` is not 1 here."""
    if shown(got) != shown(expected) or got != expected:
        raise Failed(f"{what}: {shown(expected)}", got)


def holds(frame: Json, what: str, **fields: object) -> None:
    """Raise Failed unless a frame has these fields with these values; it may have others, too."""
    fields = {name.rstrip("_"): value for name, value in fields.items()}
    found = {name: frame[name] for name in fields if name in frame}
    if json.dumps(found, sort_keys=True) != json.dumps(fields, sort_keys=True):
        raise Failed(f"{what} with {shown(fields)}", frame)


def texts(rows: Iterable[Json]) -> list[str]:
    """Return the texts of messages; of one without a text what it has instead."""
    return [row["body"]["text"] if "text" in row.get("body", ()) else shown(row) for row in rows]
