"""How much is logged: the operator's words for it, and those of `RUST_LOG` for who had the original."""

import logging
from collections.abc import Mapping

from conclave.errors import ConfigError

OFF = logging.CRITICAL + 10
"""Above every level."""

_LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "off": OFF,
}
_RUST = {**_LEVELS, "trace": logging.DEBUG, "warn": logging.WARNING}
"""The original's words, which stand for the nearest of ours."""
_TARGETS = ("conclave", "conclavelib", "conclave_cli")
"""What the original calls itself in its directives."""


def level(environment: Mapping[str, str], *, verbose: bool = False) -> int:
    """Return the lowest level that is logged: CONCLAVE_LOG, else RUST_LOG, else debug if `verbose`, else info.

    Raises:
        ConfigError: CONCLAVE_LOG is none of the words; the text lists them.
    """
    word = environment.get("CONCLAVE_LOG", "").strip()
    if word:
        if word.lower() not in _RUST:
            raise ConfigError(f"invalid CONCLAVE_LOG `{word}` (expected {', '.join(_LEVELS)})")
        return _RUST[word.lower()]
    found = rust_level(environment.get("RUST_LOG", ""))
    if found is not None:
        return found
    return logging.DEBUG if verbose else logging.INFO


def rust_level(directives: str) -> int | None:
    """Read the part of RUST_LOG that concerns this program; None if there is none.

    `LEVEL` is for everything and `TARGET=LEVEL` for one program: ours is `conclave`, or a name that the original goes
    by, and counts more than what is for everything. What names a module, a span or another program is ignored.
    """
    general = ours = None
    for directive in directives.split(","):
        target, equals, word = directive.strip().rpartition("=")
        found = _RUST.get(word.strip().lower())
        if not equals:
            general = general if found is None else found
        elif found is not None and target.strip() in _TARGETS:
            ours = found if ours is None else min(ours, found)
    return general if ours is None else ours
