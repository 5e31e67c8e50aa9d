"""The terms of an invite, whatever it is to."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

from conclave.durations import parse
from conclave.errors import InvalidDuration

_Command = TypeVar("_Command", bound=Callable[..., Any])


def terms_options(command: _Command) -> _Command:
    uses = click.option(
        "--uses", type=click.IntRange(1, 2**32 - 1), help="How many users may redeem it; unlimited unless given."
    )
    expires = click.option(
        "--expires-in", metavar="DURATION", help="How long it is good: 90, 30s, 10m, 2h, 7d; for ever unless given."
    )
    return uses(expires(command))


def lifetime(expires_in: str | None) -> int | None:
    """Return the seconds that an invite lives, None for ever.

    Raises:
        InvalidDuration: also for none at all.
    """
    seconds = None if expires_in is None else parse(expires_in)
    if seconds == 0:
        raise InvalidDuration(f"invalid duration `{expires_in}`: nobody could redeem the invite")
    return seconds
