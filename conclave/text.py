"""Text of other users, made safe to show: nothing in it moves the cursor, hides, reorders or starts a new line.

`visible` is for names and one-line texts: every character that is not plainly visible is escaped. `visible_body` is for
messages: line breaks, tabs, joined emoji and typographic spaces stay as they are, and a line break cannot forge another
message because every further line is indented.
"""

import re
import unicodedata

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

LONGEST_QUOTE = 200
"""The length at which an error text cuts a value that it quotes, in characters."""

INDENT = "    "
"""The prefix of every further line of a message body."""

_SHORT = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}

# The joiners and the two presentation selectors: emoji and several scripts need them inside words.
_JOINERS = frozenset("\u200c\u200d\ufe0e\ufe0f")

_HIDDEN_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def visible(text: str) -> str:
    r"""Escape every character that is not printable or not drawn: `\n`, `\x1b`, `\u202e`; leave plain text alone."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(char if _plain(char) else _escaped(char) for char in text)


def visible_body(text: str) -> str:
    """As `visible`, but line breaks stay line breaks; every line after the first is indented by `INDENT`."""
    lines = re.split(r"\r\n|\n", text)
    return f"\n{INDENT}".join("".join(char if _readable(char) else _escaped(char) for char in line) for line in lines)


def shortened(value: str) -> str:
    """Return a value as an error text quotes it: a request may be as long as a frame, its answer need not be."""
    return value if len(value) <= LONGEST_QUOTE else f"{value[:LONGEST_QUOTE]}…"


def _plain(char: str) -> bool:
    return char.isprintable() and char not in INVISIBLE


def _readable(char: str) -> bool:
    if char in _JOINERS or char == "\t":
        return True
    return char not in INVISIBLE and unicodedata.category(char) not in _HIDDEN_CATEGORIES


def _escaped(char: str) -> str:
    code = ord(char)
    if char in _SHORT:
        return _SHORT[char]
    if code < 0x100:  # noqa: PLR2004 - what fits two hexadecimal digits
        return f"\\x{code:02x}"
    if code < 0x10000:  # noqa: PLR2004 - what fits four
        return f"\\u{code:04x}"
    return f"\\U{code:08x}"
