"""Refusals that several services raise, and checks of what clients send. Texts are the original's where it has them."""

import re

from conclave.errors import Code, InvalidName, Refusal
from conclave.model import SessionPath
from conclave.names import NameKind, check_requested_name
from conclave.text import shortened
from relay.model.errors import RETRY_SECONDS

_LONGEST_KEY = 64
_POSITION = re.compile(r"(?:0|[1-9][0-9]{0,14})-(?:0|[1-9][0-9]{0,14})")


def not_member(channel: str) -> Refusal:
    return Refusal(Code.UNAUTHORIZED, f"not a member of channel `{shortened(channel)}`")


def not_admin() -> Refusal:
    return Refusal(Code.UNAUTHORIZED, "not authorized: admin role required")


def revoked() -> Refusal:
    return Refusal(Code.UNAUTHORIZED, "machine key revoked")


def private(channel: str) -> Refusal:
    return Refusal(Code.UNAUTHORIZED, f"channel `{shortened(channel)}` is private")


def channel_not_found(channel: str) -> Refusal:
    """Return the refusal for a channel that is absent, and for one that is hidden from the caller."""
    return Refusal(Code.NOT_FOUND, f"channel `{shortened(channel)}` not found")


def undelivered() -> Refusal:
    """Return the refusal of a whisper of which nobody knows whether it has reached its session."""
    text = "the session's node has not confirmed the whisper: it may have arrived; try again in a few seconds"
    return Refusal(Code.UNAVAILABLE, text, retry_after=RETRY_SECONDS)


def valid_position(value: str) -> str:
    """Return `value` if it has the form of a message's id. Raises: Refusal."""
    if not _POSITION.fullmatch(value):
        raise Refusal(Code.MALFORMED, f"invalid position `{shortened(value)}` (expected the id of a message)")
    return value


def valid_key(value: str) -> str:
    """Return `value` if it may be an idempotency key. Raises: Refusal."""
    if not 1 <= len(value) <= _LONGEST_KEY:
        raise Refusal(Code.MALFORMED, f"a key has 1 to {_LONGEST_KEY} characters")
    return value


def valid_path_or_user(value: str) -> str:
    """Return `value` if it may be a session's path or a username. Raises: Refusal."""
    if value.count("/") != 2:  # noqa: PLR2004 - a path has three parts
        return check_requested_name(NameKind.USER, value)
    try:
        return str(SessionPath.parse(value))
    except InvalidName as error:
        raise Refusal(Code.MALFORMED, str(error)) from None
