"""The judge of the other promises: it finds each flaw, and finds none where the relay was right."""

import pytest

from tests.chaos import judge
from tests.chaos.deliveries import Losses, Row
from tests.chaos.judge import Duration, RaceOutcome, Summary

ROWS = [Row("1-0", "ann/laptop/main"), Row("2-0", "bob/laptop/main"), Row("3-0", "ann/laptop/main")]
SENT = {row.id: row for row in ROWS}
LOSSES = Losses(frozenset({"2-0"}), frozenset({"2-0"}))


def test_a_log_is_what_was_acknowledged() -> None:
    """But for what the store has lost, whether it was acknowledged or not."""
    assert judge.of_log(ROWS, SENT, Losses()) == []
    assert judge.of_log(ROWS, {each: row for each, row in SENT.items() if each != "2-0"}, LOSSES) == []
    assert judge.of_log(ROWS, SENT, LOSSES) == []


@pytest.mark.parametrize(
    ("rows", "flaw"),
    [
        (ROWS[:2], "3-0 was acknowledged and is not in the log"),
        ([*ROWS, Row("4-0", "ann/laptop/main")], "4-0 is in the log a second time, or was never sent"),
        ([*ROWS[:2], Row("3-0", "bob/laptop/main")], "3-0 has another sender"),
    ],
)
def test_every_flaw_of_a_log_is_found(rows: list[Row], flaw: str) -> None:
    """A lost message, a repeated one, and one of somebody else."""
    assert judge.of_log(rows, SENT, Losses()) == [flaw]


def test_presence_is_the_same_and_right_at_every_node() -> None:
    """Strangers do not count: clients come and go while one asks."""
    right = {"node 0": ["a", "b", "x"], "node 1": ["b", "a"]}
    assert judge.of_presence(right, {"a", "b"}, {"c"}) == []
    wrong = {"node 0": ["a", "c"], "node 1": ["a", "b", "b"]}
    assert judge.of_presence(wrong, {"a", "b"}, {"c"}) == [
        "node 0 does not show b",
        "node 0 shows c, which is gone",
        "node 1 shows b 2 times",
    ]


@pytest.mark.parametrize(
    ("answering", "present", "may_end", "flawed"),
    [
        (1, 1, False, False),
        (0, 0, True, False),
        (0, 0, False, True),
        (2, 1, True, True),
        (1, 0, True, True),
        (1, 2, False, True),
        (0, 1, True, True),
    ],
)
def test_of_racing_logins_one_survives(answering: int, present: int, may_end: bool, flawed: bool) -> None:
    """It is present once; where connections ended, it may be gone, and then it is not present."""
    outcome = RaceOutcome("ann/laptop/den", 6, answering, present, may_end)
    assert bool(judge.of_race(outcome)) is flawed


def test_nobody_survives_a_race_that_nobody_entered() -> None:
    """No node could be reached."""
    assert judge.of_race(RaceOutcome("ann/laptop/den", 0, 0, 0, may_end=False)) == []


def test_what_is_late_is_reported_and_what_is_very_late_is_a_flaw() -> None:
    """A busy machine is late by itself."""
    summary = Summary("server", 1)
    assert summary.take(Duration("service at node 0", 4.9, 5)) == []
    assert summary.take(Duration("service at node 1", 9.9, 5)) == []
    assert summary.take(Duration("service at node 1", 19.9, 5, load=2.0)) == []
    assert summary.take(Duration("service at node 2", 10.1, 5)) == ["service at node 2 took 10.1 s, 5 s are promised"]
    assert summary.figures["service, late"] == 3
    assert summary.longest["service"].seconds == 19.9


def test_a_summary_shows_the_seed_the_faults_and_every_flaw() -> None:
    """With the seed, the faults can be chosen again."""
    summary = Summary("pair", 77, left_out=["store: the clock jumps"])
    summary.faults["nodes: kill -9"] += 3
    summary.figures["deliveries"] += 1_234
    summary.flaws.append("something is wrong")
    text = "\n".join(summary.lines())
    assert "topology pair, seed 77: 3 faults, 1 flaws" in text
    assert "3 nodes: kill -9" in text
    assert "- store: the clock jumps: not here" in text
    assert "1,234 deliveries" in text
    assert "FLAW: something is wrong" in text
