"""The promises beside deliveries, and what a run has to report. Pure: observations in, sentences out."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence

import msgspec

from tests.chaos.deliveries import Losses, Row

SERVICE_SECONDS = 5.0
"""After a fault has healed, every node serves within this time."""
PRESENCE_SECONDS = 10.0
"""After a fault has healed, presence is right within this time."""
_PATIENCE = 2.0
"""A promise counts as broken after so many times the promised time, and on a machine with more work than cores after
as many times more; what is later than promised is reported in any case."""


class Duration(msgspec.Struct, frozen=True):
    """The time that something took after a heal, in seconds, and the processes that wanted each core meanwhile."""

    what: str
    seconds: float
    promised: float
    load: float = 0.0

    @property
    def is_late(self) -> bool:
        return self.seconds > self.promised

    @property
    def is_broken(self) -> bool:
        return self.seconds > _PATIENCE * self.promised * max(1.0, self.load)


class RaceOutcome(msgspec.Struct, frozen=True):
    """Logins on one path: those that succeeded, and after the heal those that still answer, and how `who` counts them.

    `may_end` says that a fault has ended connections of clients: the survivor's may be one of them.
    """

    path: str
    succeeded: int
    answering: int
    present: int
    may_end: bool


def of_duration(took: Duration) -> list[str]:
    """Return a flaw if it took longer than promised, by far."""
    return [f"{took.what} took {took.seconds:.1f} s, {took.promised:g} s are promised"] if took.is_broken else []


def of_presence(views: Mapping[str, Collection[str]], there: Collection[str], gone: Collection[str]) -> list[str]:
    """Return the flaws of presence, as each node shows it: who is there is in it once, and who is gone is not."""
    found = []
    for node, view in views.items():
        counts = Counter(view)
        found += [f"{node} does not show {path}" for path in sorted(there) if counts[path] == 0]
        found += [f"{node} shows {path} {counts[path]} times" for path in sorted(there) if counts[path] > 1]
        found += [f"{node} shows {path}, which is gone" for path in sorted(gone) if counts[path]]
    return found


def of_race(race: RaceOutcome) -> list[str]:
    """Return the flaws of racing logins: one survives, and is present once."""
    found = []
    if race.answering > 1:
        found.append(f"{race.answering} of {race.succeeded} sessions on {race.path} survived")
    if race.answering == 0 and race.succeeded and not race.may_end:
        found.append(f"none of {race.succeeded} sessions on {race.path} survived")
    if race.present != race.answering:
        found.append(f"{race.path} has {race.answering} sessions and is present {race.present} times")
    return found


def of_log(rows: Sequence[Row], acknowledged: Mapping[str, Row], losses: Losses) -> list[str]:
    """Return the flaws of a log, once every send is acknowledged: each key is one message, but for what was lost."""
    kept = {row.id: row for row in rows if row.id not in losses.all}
    sent = {each: row for each, row in acknowledged.items() if each not in losses.all}
    return [
        *(f"{each} was acknowledged and is not in the log" for each in sorted(sent.keys() - kept.keys())),
        *(f"{each} is in the log a second time, or was never sent" for each in sorted(kept.keys() - sent.keys())),
        *(f"{each} has another sender" for each in sorted(kept.keys() & sent.keys()) if kept[each] != sent[each]),
    ]


class Summary(msgspec.Struct):
    """What happened in a run, and what was wrong."""

    topology: str
    seed: int
    left_out: list[str] = []
    """The kinds of faults that this topology, or this machine, does not have."""
    faults: Counter[str] = msgspec.field(default_factory=Counter)
    figures: Counter[str] = msgspec.field(default_factory=Counter)
    longest: dict[str, Duration] = {}
    flaws: list[str] = []

    def take(self, took: Duration) -> list[str]:
        """Note a duration; one that is longer than promised counts as late. Returns a flaw if it is so by far."""
        kind = took.what.partition(" at ")[0]
        self.longest[kind] = max(self.longest.get(kind, took), took, key=lambda each: each.seconds)
        self.figures[f"{kind}, late"] += took.is_late
        return of_duration(took)

    def lines(self) -> Iterable[str]:
        """Return the report, line by line."""
        yield f"topology {self.topology}, seed {self.seed}: {self.faults.total()} faults, {len(self.flaws)} flaws"
        yield from (f"  {count:7,} {name}" for name, count in sorted(self.faults.items()))
        yield from (f"        - {name}: not here" for name in self.left_out)
        yield "figures:"
        yield from (f"  {count:7,} {name}" for name, count in self.figures.items())
        yield "longest after a heal:"
        yield from (
            f"  {took.seconds:7.2f} s  {took.what} (promised: {took.promised:g} s)" for took in self.longest.values()
        )
        yield from (f"FLAW: {flaw}" for flaw in self.flaws)
