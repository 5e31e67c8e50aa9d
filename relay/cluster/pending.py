"""Work that is pending, in groups, and stays so until it was done. No I/O."""

from collections.abc import Callable, Mapping
from itertools import islice
from typing import Generic, TypeVar

from relay.redis.batches import IN_FLIGHT

V = TypeVar("V")

_PER_GROUP = 256
_PER_BATCH = 4096


class Entry(Generic[V]):
    """A piece of work. One that is added again is another entry."""

    __slots__ = ("value",)

    def __init__(self, value: V) -> None:
        self.value = value


Batch = Mapping[str, Mapping[str, Entry[V]]]
"""Entries by group and key."""


class Pending(Generic[V]):
    """A set of work, each piece under the name of its group and a key."""

    def __init__(self) -> None:
        self._groups: dict[str, dict[str, Entry[V]]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._groups.values()))

    def __bool__(self) -> bool:
        return bool(self._groups)

    def add(self, group: str, key: str, value: V) -> None:
        self._groups.setdefault(group, {})[key] = Entry(value)

    def discard(self, group: str, key: str) -> None:
        """Remove a piece of work, if it is pending."""
        entries = self._groups.get(group, {})
        if entries.pop(key, None) is not None and not entries:
            del self._groups[group]

    def clear(self) -> None:
        self._groups.clear()

    def batch(self, weight: Callable[[V], int] = lambda _: 1) -> Batch[V]:
        """Return some of the work, which stays pending: of up to 256 groups up to 256 entries each.

        It ends with the entry with which the sum of the weights reaches 4,096.
        """
        batch: dict[str, dict[str, Entry[V]]] = {}
        total = 0
        for group, entries in islice(self._groups.items(), IN_FLIGHT):
            for key, entry in islice(entries.items(), _PER_GROUP):
                if total >= _PER_BATCH:
                    return batch
                batch.setdefault(group, {})[key] = entry
                total += weight(entry.value)
        return batch

    def done(self, batch: Batch[V]) -> None:
        """Remove what was done. An entry that was added again meanwhile stays."""
        for group, entries in batch.items():
            pending = self._groups.get(group, {})
            for key, entry in entries.items():
                if pending.get(key) is entry:
                    self.discard(group, key)
