"""The one rule for names of users, machines, sessions and channels.

1 to 64 characters (session handles 128), in Unicode NFC, printable: no control, format, bidirectional or separator
character, no character that is drawn as nothing, no `/`, and no space at either end. So a name is one line, survives
a terminal and a prompt, is compared byte by byte, and two names that look alike down to the pixel do not come from
invisible characters.
"""

import enum
import unicodedata

from conclave.errors import InvalidName

# Printable by category, yet drawn as nothing (Unicode: Default_Ignorable_Code_Point, and the blank braille pattern).
INVISIBLE = frozenset(
    chr(code)
    for codes in (
        (0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x2800, 0x3164, 0xFFA0),
        range(0x180B, 0x1810),
        range(0xFE00, 0xFE10),
        range(0xE0100, 0xE01F0),
    )
    for code in codes
)

_SHOWN = 200
"""How much of a refused name its error repeats, in characters."""


class NameKind(enum.Enum):
    """What a name names: the words for error texts, and the greatest length in characters."""

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
        shown = value if len(value) <= _SHOWN else f"{value[:_SHOWN]}…"
        raise InvalidName(f"invalid {kind.label}: `{shown}` ({broken})")
    return value


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
