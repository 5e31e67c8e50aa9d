"""The session's handle at a server, and the next one if another session holds it. Pure.

A bridge takes its directory's name, unless its owner chose a handle. When two bridges have one name, the later login
wins and the server tells the earlier session that it was superseded; only that session takes the next name, `dir-2`,
then `dir-3`. So any number of bridges of one directory get names of their own, without coordination and in any order:

- A session leaves a name only when it is superseded, so when another session has taken it: a name that was held once
  stays held as long as no session ends.
- A bridge gets to the k-th name only from the one before it. So all names below it are held, by k - 1 others.
- Names only go up. So of n bridges none gets beyond the n-th name, and after at most n (n - 1) / 2 moves each has its
  own. (Three: the second moves the first to `dir-2`; the third moves the second there, and that one the first to
  `dir-3`.)

This holds for each server separately. With one handle for several servers, two sessions could each supersede the other
at one of them and move on together for ever; so every uplink has its own `Handle`.

An explicit handle never changes: if two sessions have the same one, their owner has to resolve that.
"""

import unicodedata
from pathlib import Path

import msgspec

from conclave.errors import InvalidName
from conclave.names import NameKind, check_name

NAMELESS = "session"
"""The handle of a bridge whose directory has no usable name."""

_ROOM = len("-99999")


class Handle(msgspec.Struct, frozen=True):
    """A session handle; `number` counts the tried names, from 1."""

    base: str
    explicit: bool
    number: int = 1

    @property
    def name(self) -> str:
        return self.base if self.number == 1 else f"{self.base}-{self.number}"

    def superseded(self) -> "Handle":
        """Return the handle to take after another session has taken this one; an explicit handle stays."""
        return self if self.explicit else Handle(self.base, explicit=False, number=self.number + 1)


def chosen(text: str) -> Handle:
    """Return the handle that the owner chose.

    Raises:
        InvalidName: if it is not a valid handle.
    """
    return Handle(check_name(NameKind.SESSION, text), explicit=True)


def of_directory(directory: Path) -> Handle:
    """Return the handle of a bridge that runs in `directory`: its name, with `-` for invalid characters."""
    text = "".join(char if _may_be_in_a_name(char) else "-" for char in unicodedata.normalize("NFC", directory.name))
    text = text.strip("- ")[: NameKind.SESSION.longest - _ROOM].rstrip("- ")
    return Handle(text or NAMELESS, explicit=False)


def _may_be_in_a_name(char: str) -> bool:
    if char == " ":
        return True
    try:
        check_name(NameKind.SESSION, char)
    except InvalidName:
        return False
    return True
