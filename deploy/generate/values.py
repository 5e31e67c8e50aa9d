"""The values of the chart, with their descriptions: the comments of values.yaml that begin with `# --`."""

import re
from dataclasses import dataclass
from typing import Any

import yaml

_INDENT = 2


@dataclass(frozen=True, slots=True)
class Value:
    """One value of the chart that has a description."""

    path: tuple[str, ...]
    description: str
    default: Any

    @property
    def name(self) -> str:
        return ".".join(self.path)


def read_values(text: str) -> list[Value]:
    """Return the described values in the file's order. A description may continue in the comment lines below it."""
    defaults = yaml.safe_load(text)
    found: list[Value] = []
    path: list[str] = []
    comment: list[str] = []
    for line in text.splitlines():
        stripped = line.strip()
        if stripped.startswith("# -- "):
            comment = [stripped.removeprefix("# -- ")]
        elif stripped.startswith("# ") and comment:
            comment.append(stripped.removeprefix("# "))
        elif match := re.match(r"( *)([A-Za-z]\w*):", line):
            path = [*path[: len(match[1]) // _INDENT], match[2]]
            if comment:
                found.append(Value(tuple(path), " ".join(comment), _at(defaults, path)))
            comment = []
    return found


def _at(values: Any, path: list[str]) -> Any:
    for key in path:
        values = values[key]
    return values
