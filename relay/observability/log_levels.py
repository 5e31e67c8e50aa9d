"""The log level: CONCLAVE_LOG, and RUST_LOG for operators who come from the original."""

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
"""The original's level names, mapped to the nearest level here."""
_TARGETS = ("conclave", "conclavelib", "conclave_cli")
"""The original's names for itself in directives."""


def level(environment: Mapping[str, str], *, verbose: bool = False) -> int:
    """Return the lowest level that is logged: CONCLAVE_LOG, else RUST_LOG, else debug if `verbose`, else info.

    Raises:
        ConfigError: CONCLAVE_LOG is not a level; the text lists the levels.
    """
    name = environment.get("CONCLAVE_LOG", "").strip()
    if name:
        if name.lower() not in _RUST:
            raise ConfigError(f"invalid CONCLAVE_LOG `{name}` (expected {', '.join(_LEVELS)})")
        return _RUST[name.lower()]
    found = rust_level(environment.get("RUST_LOG", ""))
    if found is not None:
        return found
    return logging.DEBUG if verbose else logging.INFO


def rust_level(directives: str) -> int | None:
    """Return the level that RUST_LOG sets for this program, or None.

    `LEVEL` applies to every program, and `TARGET=LEVEL` to one: `conclave`, or another name of the original. A target's
    level takes precedence. Directives for modules, spans and other programs are ignored.
    """
    general = ours = None
    for directive in directives.split(","):
        target, equals, name = directive.strip().rpartition("=")
        found = _RUST.get(name.strip().lower())
        if not equals:
            general = general if found is None else found
        elif found is not None and target.strip() in _TARGETS:
            ours = found if ours is None else min(ours, found)
    return general if ours is None else ours
