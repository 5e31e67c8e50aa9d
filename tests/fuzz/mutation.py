"""Mutations of JSON that are still JSON, or nearly: bytes that are flipped at random seldom are."""

import json
import random
from typing import Any

_VALUES: list[Any] = [
    *(None, True, False, 0, -1, 1.0, 1e308, 2**53, -(2**53) + 1, 2**63, 10**30, "", "x", [], {}, [[]]),
    *("0-0", "1795271790875-0", "a/b/c", "ws://h:0", "\u202e", "\ud800", "\x00", "x" * 300, "AA", "AB", "A" * 43),
]
_LATEST = 20


def mutated(data: bytes, seed: int, longest: int, others: list[bytes]) -> bytes | None:
    """Return an input with one change in its last JSON object; None if there is none, or it gets too long.

    Sometimes another input is changed instead. The fuzzer sees which code a message reaches only where that is Python,
    so most of the first inputs look alike to it.
    """
    rng = random.Random(seed)  # noqa: S311 - nothing secret
    data = rng.choice([data, data, *others[seed % len(others) :][:1]])
    head, between, last = data.rpartition(b"\n")
    try:
        value = json.loads(last)
        donor = json.loads(rng.choice(others).rpartition(b"\n")[2])
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict):
        return None
    _change(value, donor if isinstance(donor, dict) else {}, rng)
    text = json.dumps(value, ensure_ascii=rng.random() < 0.5)
    result = head + between + text.encode("utf-8", "surrogatepass")
    return result if len(result) <= longest else None


def _change(value: dict[str, Any], donor: dict[str, Any], rng: random.Random) -> None:
    """Change, remove or add a field, in this object or a nested one."""
    inner = [each for each in value.values() if isinstance(each, dict)]
    if inner and rng.random() < 0.4:
        _change(rng.choice(inner), donor, rng)
        return
    names = [*value, *donor]
    if not names or len(value) > _LATEST:
        value.clear()
        return
    name = rng.choice(names)
    match rng.randrange(4):
        case 0:
            value.pop(name, None)
        case 1:
            value[name] = rng.choice(_VALUES)
        case 2 if name in donor:
            value[name] = donor[name]
        case _:
            value[rng.choice(names)] = value.get(rng.choice(names))
