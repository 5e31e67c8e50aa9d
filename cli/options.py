"""Options that several verbs share, and the values that they stand for."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

from conclave.durations import parse
from conclave.errors import InvalidDuration

_Command = TypeVar("_Command", bound=Callable[..., Any])


def server_option(command: _Command) -> _Command:
    option = click.option("--server", required=True, metavar="URL", help="The server, as ws:// or wss:// URL.")
    return option(command)


def channel_option(command: _Command) -> _Command:
    return click.option("--channel", required=True, help="The channel.")(command)


def json_option(command: _Command) -> _Command:
    return click.option("--json", "as_json", is_flag=True, help="Print the reply as JSON.")(command)


def invite_options(command: _Command) -> _Command:
    """Add the limits of an invite, to a channel or to a server: `uses` and `expires_in` (for `seconds`)."""
    uses = click.option(
        "--uses", type=click.IntRange(1, 2**32 - 1), help="How many users may redeem it; unlimited unless given."
    )
    expires = click.option(
        "--expires-in", metavar="DURATION", help="Its lifetime: 90, 30s, 10m, 2h, 7d; unlimited unless given."
    )
    return uses(expires(command))


def seconds(expires_in: str | None) -> int | None:
    """Return the lifetime of an invite in seconds; None means that it does not expire.

    Raises:
        InvalidDuration: also for zero seconds.
    """
    lifetime = None if expires_in is None else parse(expires_in)
    if lifetime == 0:
        raise InvalidDuration(f"invalid duration `{expires_in}`: nobody could redeem the invite")
    return lifetime
