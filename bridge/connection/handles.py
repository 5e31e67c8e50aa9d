"""The session's handle at a server, and the next one when another session turns out to hold it. Pure.

A bridge takes its directory's name, unless its owner chose a handle. When two bridges have one name, the later login
wins and the server tells the earlier session that it was superseded: that session alone takes the next name, `dir-2`,
then `dir-3`. So any number of bridges of one directory settle, without chance or coordination, whoever is faster:

- A name is left only by a session that was superseded, so by one whose place another has taken: a name that was ever
  held remains held as long as nobody ends.
- A bridge gets to the k-th name only from the one before it. So below it all names are held, by k - 1 others.
- Names only go up. So of n bridges none gets beyond the n-th name, and after n (n - 1) / 2 moves at most each has its
  own. (Three: the second moves the first to `dir-2`; the third moves the second there, and that one the first to
  `dir-3`.)

That counts for each server by itself. A handle that several servers shared would be lost at one of them to a session
that loses it at another, and both would move on together again and again; so every link has its own `Handle`.

An explicit handle never changes: two sessions with the same one are what their owner asked for, or has to mend.
"""

import unicodedata
from pathlib import Path

import msgspec

from conclave.errors import InvalidName
from conclave.names import NameKind, check_name

NAMELESS = "session"
"""The handle of a bridge whose directory has no name that could be one."""

_ROOM = len("-99999")


class Handle(msgspec.Struct, frozen=True):
    """A session handle; `number` counts the names that were tried, from 1 on."""

    base: str
    explicit: bool
    number: int = 1

    @property
    def name(self) -> str:
        return self.base if self.number == 1 else f"{self.base}-{self.number}"

    def superseded(self) -> "Handle":
        """Return what to be called after another session has taken this name; an explicit handle stays."""
        return self if self.explicit else Handle(self.base, explicit=False, number=self.number + 1)


def chosen(text: str) -> Handle:
    """Return the handle that the owner chose.

    Raises:
        InvalidName: if it cannot be one.
    """
    return Handle(check_name(NameKind.SESSION, text), explicit=True)


def of_directory(directory: Path) -> Handle:
    """Return the handle of a bridge that runs in `directory`: its name, with `-` for what a handle cannot have."""
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
