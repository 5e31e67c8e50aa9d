"""The rules for names of users, machines, sessions and channels.

1 to 64 characters (session handles 128), in Unicode NFC, printable: no control, format, bidirectional or separator
character, no character that is drawn as nothing, no `/`, and no space at either end. So a name is one line, is safe in
a terminal and a prompt, can be compared byte by byte, and two names that look the same do not differ in invisible
characters.
"""

import enum
import unicodedata

from conclave.errors import Code, InvalidName, Refusal
from conclave.text import INVISIBLE, shortened


class NameKind(enum.Enum):
    """A kind of name: the words for error texts, and the greatest length in characters."""

    USER = ("username", 64)
    MACHINE = ("machine name", 64)
    SESSION = ("session handle", 128)
    CHANNEL = ("channel name", 64)

    def __init__(self, label: str, longest: int) -> None:
        self.label = label
        self.longest = longest


def check_name(kind: NameKind, value: str) -> str:
    """Return `value` unchanged if it may name a `kind`.

    Raises:
        InvalidName: with the broken rule in words.
    """
    broken = _broken_rule(value, kind.longest)
    if broken is not None:
        raise InvalidName(f"invalid {kind.label}: `{shortened(value)}` ({broken})")
    return value


def check_requested_name(kind: NameKind, value: str) -> str:
    """Do the same for a name in a peer's request. Raises: Refusal, with the text of InvalidName."""
    try:
        return check_name(kind, value)
    except InvalidName as error:
        raise Refusal(Code.MALFORMED, str(error)) from None


def _broken_rule(value: str, longest: int) -> str | None:
    if not value:
        return "it must not be empty"
    if len(value) > longest:
        return f"it must not be longer than {longest} characters"
    if "/" in value:
        return "it must not contain `/`"
    if value[0] == " " or value[-1] == " ":
        return "it must not start or end with a space"
    # isprintable() is False for every character of Unicode's categories Other and Separator, except the space.
    if not value.isprintable() or not INVISIBLE.isdisjoint(value):
        return "it must consist of visible characters"
    if not unicodedata.is_normalized("NFC", value):
        return "it must be in Unicode normal form NFC"
    return None
