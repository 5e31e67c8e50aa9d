"""The comparison with the log: it finds each flaw, and finds none where the relay was right."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.model.message import START
from tests.chaos.deliveries import Gap, JoinRequest, Losses, Row, Stay, flaws

ME = "bob/laptop/main"
LOG = [Row(f"{number}-0", ME if number == 4 else "ann/laptop/main") for number in range(1, 10)]
FOREIGN = [row.id for row in LOG if row.sender != ME]


def stay(
    since: str | None,
    *steps: str | Gap,
    position: str = "9-0",
    recovered: bool | None = True,
    trimmed: str = START,
    trimming: str | None = None,
) -> Stay:
    """Make a stay; a trim had ended before its join was sent, unless `trimming` says more."""
    answer = None if since is None else recovered
    return Stay(JoinRequest(since, START, trimmed), position, answer, trimming or trimmed, list(steps))


def test_all_in_order_is_right() -> None:
    """One's own message is left out."""
    assert flaws(ME, [stay("0-0", *FOREIGN)], LOG) == []


def test_a_stay_continues_where_the_last_one_ended() -> None:
    """On whichever node, and however little was handled in between."""
    stays = [stay(None, "3-0", "5-0", position="2-0"), stay("5-0"), stay("5-0", *FOREIGN[4:])]
    assert flaws(ME, stays, LOG) == []


def test_a_join_without_since_begins_at_the_position_in_its_reply() -> None:
    """Earlier messages are not for a session that joins without `since`."""
    stays = [stay("0-0", "1-0"), stay(None, "8-0", "9-0", position="7-0")]
    assert flaws(ME, stays, LOG) == []


def test_what_was_trimmed_may_be_missing_behind_a_gap() -> None:
    """And only after it: rows that the log still has must come."""
    gap = Gap("2-0", "7-0")
    right = stay("2-0", gap, "7-0", "8-0", "9-0", recovered=False, trimmed="7-0")
    assert flaws(ME, [stay("0-0", "1-0", "2-0"), right], LOG) == []
    short = stay("2-0", gap, "8-0", "9-0", recovered=False, trimmed="7-0")
    assert flaws(ME, [short], LOG) == ["stay 0: 1 from 7-0 to 7-0 missing before 8-0"]


def test_a_gap_in_the_middle() -> None:
    """The log was trimmed while the session caught up, or while its node was not subscribed."""
    assert flaws(ME, [stay("0-0", "1-0", Gap("1-0", "6-0"), *FOREIGN[4:])], LOG) == []


def test_a_gap_that_ends_a_stay_moves_nothing() -> None:
    """The session resumes after its last handled message, and is told again."""
    gap = Gap("1-0", "9-0")
    stays = [stay("1-0", gap, recovered=False, trimmed="9-0"), stay("1-0", gap, "9-0", recovered=False, trimmed="9-0")]
    assert flaws(ME, stays, LOG) == []


@pytest.mark.parametrize(
    ("flawed", "flaw"),
    [
        (stay("7-0", "9-0"), "1 from 8-0 to 8-0 missing before 9-0"),
        (stay("7-0", "8-0", "8-0", "9-0"), "8-0 came again, or late, behind 8-0"),
        (stay("8-0", "8-0", "9-0"), "8-0 came again, or late, behind 8-0"),
        (stay("6-0", "8-0", "7-0", "9-0"), "1 from 7-0 to 7-0 missing before 8-0"),
        (stay("3-0", "4-0", *FOREIGN[3:]), "4-0 was posted by nobody else"),
        (stay("8-0", "8-5", "9-0"), "8-5 was posted by nobody else"),
        (stay("8-0", "9-0", recovered=False), "nothing behind 8-0 was gone, and yet it was not recovered"),
        (stay("8-0", Gap("8-0", START), "9-0"), "a gap behind 8-0, where nothing was gone"),
        (stay("6-0", Gap("7-0", "8-0"), "8-0", "9-0"), "1 from 7-0 to 7-0 missing before 7-0"),
        (stay("6-0", "7-0", Gap("6-0", "7-0"), "8-0", "9-0"), "a gap behind 6-0, of which 7-0 was received"),
        (stay("2-0", "9-0", recovered=False, trimmed="9-0"), "what followed 2-0 was lost, and no gap tells so"),
        (stay("2-0", Gap("2-0", "9-0"), "9-0", trimmed="9-0"), "what followed 2-0 was gone, and yet it was recovered"),
        (stay("8-0", "9-0", recovered=None), "nothing behind 8-0 was gone, and yet it was not recovered"),
        (stay("8-0", "9-0", position="8-7"), "the position 8-7 was never in the log"),
    ],
)
def test_every_flaw_is_found(flawed: Stay, flaw: str) -> None:
    """A check that misses one proves nothing."""
    assert f"stay 0: {flaw}" in flaws(ME, [flawed], LOG)


def test_an_old_position_is_a_flaw() -> None:
    """A join that is answered with an earlier end of the channel would promise messages that were posted before."""
    late = Stay(JoinRequest(None, "6-0", START), "5-0", None, START, [*FOREIGN[4:]])
    assert flaws(ME, [late], LOG) == ["stay 0: the position 5-0 is older than 6-0, which was posted before"]


def test_messages_that_are_missing_at_the_end_are_a_flaw() -> None:
    """Also if the session never joined at all."""
    assert flaws(ME, [stay("7-0", "8-0")], LOG) == ["at the end: 1 from 9-0 to 9-0 never received"]
    assert flaws(ME, [], LOG) == ["at the end: 8 from 1-0 to 9-0 never received"]


def test_a_session_that_forgets_is_a_flaw() -> None:
    """Of the test's own client: with a later `since` it would hide a hole."""
    stays = [stay("0-0", "1-0"), stay("5-0", *FOREIGN[4:])]
    assert flaws(ME, stays, LOG) == ["stay 1: came back with 5-0, but had handled 1-0"]


LOST = ("5-0", "6-0")
LOSSES = Losses(frozenset(LOST), frozenset(LOST))
REST = [each for each in FOREIGN if each not in LOST]


def joined_after_the_loss(*steps: str | Gap, recovered: bool) -> Stay:
    """Make a stay that begins at 3-0, once the loss is known."""
    return Stay(JoinRequest("3-0", START, START, LOSSES.known), "9-0", recovered, START, list(steps))


@pytest.mark.parametrize(
    "right",
    [
        stay("3-0", "5-0", "6-0", *REST[3:]),
        stay("3-0", "5-0", "6-0", Gap("6-0", START), *REST[3:]),
        stay("3-0", "5-0", Gap("5-0", START), *REST[3:]),
        stay("3-0", Gap("3-0", START), *REST[3:]),
        stay("5-0", Gap("5-0", START), *REST[3:], recovered=False),
        joined_after_the_loss(Gap("3-0", START), *REST[3:], recovered=False),
        Stay(
            JoinRequest("1-0", START, START, LOSSES.known),
            "9-0",
            False,
            START,
            ["2-0", "3-0", Gap("3-0", START), *REST[3:]],
        ),
        stay("7-0", *REST[4:]),
    ],
)
def test_what_a_failover_took_was_received_or_is_told(right: Stay) -> None:
    """Live sessions may have got it; everybody else is told, and who joined after it is not concerned."""
    assert flaws(ME, [right], LOG, LOSSES) == []


@pytest.mark.parametrize(
    ("flawed", "flaw"),
    [
        (stay("3-0", *REST[3:]), "2 from 5-0 to 6-0 lost before 7-0, and no gap tells so"),
        (stay("3-0", "5-0", *REST[3:]), "1 from 6-0 to 6-0 lost before 7-0, and no gap tells so"),
        (
            joined_after_the_loss(Gap("3-0", START), *REST[3:], recovered=True),
            "of what followed 3-0, 2 from 5-0 to 6-0 was lost, and yet it was recovered",
        ),
        (stay("7-0", Gap("7-0", START), "8-0", "9-0"), "a gap behind 7-0, where nothing was gone"),
        (stay("7-0", "8-0", "9-0", recovered=False), "nothing behind 7-0 was gone, and yet it was not recovered"),
        (stay("2-0", Gap("3-0", START), *REST[3:]), "1 from 3-0 to 3-0 missing before 3-0"),
        (stay("3-0", Gap("6-0", START), *REST[3:]), "1 from 5-0 to 5-0 lost before 6-0, and no gap tells so"),
        (stay("3-0", Gap("3-0", START), "8-0", "9-0"), "1 from 7-0 to 7-0 missing before 8-0"),
        (stay("3-0", "5-0", "6-0", "5-0", *REST[3:]), "5-0 came again, or late, behind 6-0"),
    ],
)
def test_every_flaw_of_a_failover_is_found(flawed: Stay, flaw: str) -> None:
    """A loss that is hidden, a gap that is false, and rows that the log still has."""
    assert f"stay 0: {flaw}" in flaws(ME, [flawed], LOG, LOSSES)


def test_a_loss_that_nobody_could_know_need_not_be_told() -> None:
    """A message that was neither acknowledged nor delivered is lost with the store that had it; it may be told."""
    unknown = Losses(frozenset(LOST))
    assert flaws(ME, [stay("3-0", *REST[3:])], LOG, unknown) == []
    assert flaws(ME, [stay("3-0", Gap("3-0", START), *REST[3:])], LOG, unknown) == []


def test_a_loss_at_the_end_is_told_too() -> None:
    """Nothing follows that would show it."""
    losses = Losses(frozenset({"9-0"}), frozenset({"9-0"}))
    assert flaws(ME, [stay("7-0", "8-0")], LOG, losses) == ["at the end: 1 from 9-0 to 9-0 lost, and no gap tells so"]
    assert flaws(ME, [stay("7-0", "8-0", Gap("8-0", START))], LOG, losses) == []


@given(st.lists(st.integers(0, len(FOREIGN)), max_size=6), st.integers(0, len(FOREIGN) - 1), st.booleans())
def test_any_cuts_are_right_and_any_loss_or_repeat_is_not(cuts: list[int], place: int, repeat: bool) -> None:
    """However the sequence is divided into stays."""
    ends = [*sorted(cuts), len(FOREIGN)]
    begins = [0, *ends[:-1]]
    pieces = [FOREIGN[begin:end] for begin, end in zip(begins, ends, strict=True)]

    def stays() -> list[Stay]:
        position, made = START, []
        for piece in pieces:
            made.append(stay(position, *piece))
            position = made[-1].end
        return made

    assert flaws(ME, stays(), LOG) == []
    number = next(i for i, end in enumerate(ends) if end > place)
    pieces[number].insert(place - begins[number], FOREIGN[place])
    if not repeat:
        pieces[number] = [each for each in pieces[number] if each != FOREIGN[place]]
    assert flaws(ME, stays(), LOG) != []
