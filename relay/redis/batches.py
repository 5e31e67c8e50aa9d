"""Work over many things: so much of it is under way at a time that other commands do not wait long behind it."""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

IN_FLIGHT = 256
"""The commands of one piece of work that are under way at the same time."""
NAMES = 500
"""The most names in one command, and the entries that one script looks at."""

T = TypeVar("T")


def pieces(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Divide items into lists of up to `size`."""
    iterator = iter(items)
    while piece := list(islice(iterator, size)):
        yield piece
