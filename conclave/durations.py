"""Durations as users type them: `90`, `30s`, `10m`, `2h`, `7d`."""

import re

from conclave.errors import InvalidDuration

_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}
_SHAPE = re.compile(r"([0-9]{1,19})([smhd]?)", re.ASCII)

LONGEST = (2**63 - 1) // 1000
"""The greatest duration in seconds: beyond it the milliseconds do not fit the wire's 64-bit integers."""


def parse(text: str) -> int:
    """Return the number of seconds: an integer with an optional suffix s, m, h or d, spaces around it allowed.

    Raises:
        InvalidDuration: also for a value too large for the wire, instead of wrapping around.
    """
    match = _SHAPE.fullmatch(text.strip())
    if match is None:
        raise InvalidDuration(f"invalid duration `{text}`")
    seconds = int(match[1]) * _SECONDS[match[2]]
    if seconds > LONGEST:
        raise InvalidDuration(f"invalid duration `{text}`: it is too long")
    return seconds
