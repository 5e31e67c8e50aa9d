"""The account of one channel: nothing is skipped, and nothing is shown twice that was not read on purpose."""

from bridge.session.read_state import UNPLACED_CHARS, UNPLACED_MESSAGES, Count, ReadState, at_time, behind
from conclave.protocol.body import Body
from conclave.protocol.events import Message
from conclave.protocol.requests import History, Row

ME = "ann/laptop/me"
BOB = "bob/laptop/main"


def row(number: int, text: str = "", sender: str = BOB) -> Row:
    return Row(id=f"{number}-0", ts=number, from_=sender, body=Body(text=text or f"text {number}"))


def live(number: int, text: str = "", *, placed: bool = True) -> Message:
    return Message(
        channel="ops",
        from_=BOB,
        body=Body(text=text or f"text {number}"),
        id=f"{number}-0" if placed else None,
        ts=number if placed else None,
    )


def counted(reading: ReadState, rows: list[Row], own: str = ME) -> Count:
    count = reading.count(own, keep=50)
    count.add(rows)
    return count


def test_what_is_shown_moves_the_watermark() -> None:
    """A restart continues behind it."""
    reading = ReadState("1-0", placed=True)
    reading.live(live(2), shown=True)
    assert (reading.position, reading.heard, reading.behind) == ("2-0", "2-0", False)


def test_a_muted_message_holds_the_watermark_back() -> None:
    """Raising the level must not make what was said meanwhile disappear."""
    reading = ReadState("1-0", placed=True)
    reading.live(live(2), shown=False)
    reading.live(live(3), shown=True)
    assert (reading.position, reading.heard) == ("1-0", "3-0")
    reading.caught_up([row(2), row(3)], more=False)
    reading.live(live(4), shown=True)
    assert reading.position == "4-0"


def test_a_page_of_several_leaves_the_rest_for_the_next() -> None:
    """Live traffic between two pages must not jump over the second."""
    reading = ReadState("1-0", placed=True)
    reading.skip(counted(reading, []), "9-0")
    reading.caught_up([row(2), row(3)], more=True)
    reading.live(live(10), shown=True)
    assert (reading.position, reading.heard) == ("3-0", "10-0")
    reading.caught_up([row(4), row(10)], more=False)
    assert (reading.position, reading.behind) == ("10-0", False)


def test_one_s_own_messages_are_not_missed() -> None:
    """The server does not deliver them to their session, so that they are not there live says nothing."""
    reading = ReadState("1-0", placed=True)
    assert counted(reading, [row(2, sender=ME), row(3)]).rows == [row(3)]


def test_what_was_shown_from_the_history_is_not_shown_again_live() -> None:
    """A message that is posted between the join and the reading of the history comes both ways."""
    reading = ReadState("1-0", placed=True)
    reading.showing(counted(reading, [row(2)]))
    assert reading.is_repeated(live(2))
    assert not reading.is_repeated(live(3))
    assert reading.position == "2-0"


def test_without_positions_a_copy_is_told_by_its_words_only_while_it_may_come() -> None:
    """A v1 server tells no ids. Somebody who says "ok" twice must still be heard twice."""
    reading = ReadState(at_time(0), placed=False)
    reading.showing(counted(reading, [row(2, "ok")]))
    assert reading.is_repeated(live(2, "ok", placed=False))
    assert not reading.is_repeated(live(3, "ok", placed=False))
    reading.showing(counted(reading, [row(4, "well")]))
    reading.forget_early()
    assert not reading.is_repeated(live(5, "well", placed=False))


def test_messages_without_a_position_are_found_in_the_history() -> None:
    """Until then the watermark stays: reporting something twice is the safe side."""
    reading = ReadState("1-0", placed=False)
    reading.live(live(2, placed=False), shown=True)
    assert (reading.position, reading.unsettled) == ("1-0", True)
    reading.settle([row(2), row(3)], ME)
    assert (reading.position, reading.unsettled) == ("2-0", False)
    assert counted(reading, [row(3)]).rows == [row(3)]


def test_after_a_loss_only_what_did_not_come_live_was_missed() -> None:
    """The rows since the last position contain what was heard and not settled yet."""
    reading = ReadState("1-0", placed=False)
    reading.live(live(2, placed=False), shown=True)
    assert counted(reading, [row(2), row(3)]).rows == [row(3)]


def test_a_count_that_is_broken_off_has_moved_nothing() -> None:
    """The connection may be lost between two pages: the next one must find all of it missed again."""
    reading = ReadState("1-0", placed=False)
    reading.live(live(2, placed=False), shown=True)
    assert counted(reading, [row(2), row(3), row(4)]).missed == 2
    assert (reading.position, reading.heard, reading.unsettled) == ("1-0", "1-0", True)
    assert counted(reading, [row(2), row(3), row(4)]).missed == 2


def test_it_starts_behind_what_was_said_a_moment_before() -> None:
    """A time is up to a second early. What was said in that second never comes live, and must not be waited for."""
    reading = ReadState(at_time(0), placed=False)
    reading.live(live(3, placed=False), shown=True)
    reading.start(counted(reading, [row(2), row(3), row(4)]))
    assert (reading.position, reading.unsettled) == ("4-0", False)
    reading.live(live(4, placed=False), shown=True)
    assert not reading.unsettled, "it was on its way when the history was read"
    reading.live(live(5, placed=False), shown=True)
    reading.settle([row(5)], ME)
    assert reading.position == "5-0"


def test_what_one_said_under_an_earlier_handle_is_one_s_own() -> None:
    """Whoever holds that handle now says other things, and those were missed."""
    reading = ReadState("1-0", placed=False)
    reading.said(ME, Body(text="mine"))
    reading.live(live(3, placed=False), shown=True)
    mine, another = row(2, "mine", sender=ME), row(4, "not mine", sender=ME)
    assert counted(reading, [mine, row(3), another], "ann/laptop/me-2").rows == [another]
    reading.settle([mine, row(3), another], "ann/laptop/me-2")
    assert reading.position == "3-0"


def test_the_account_of_what_has_no_position_is_bounded() -> None:
    """The history may lack what was heard: the session still runs for days. What is given up is not taken as shown."""
    reading = ReadState("1-0", placed=False)
    for number in range(2, UNPLACED_MESSAGES + 2):
        reading.live(live(number, placed=False), shown=True)
    assert not reading.behind
    reading.live(live(0, placed=False), shown=True)
    assert (reading.behind, reading.unsettled, reading.position) == (True, False, "1-0")
    reading.live(live(1, "x" * (UNPLACED_CHARS + 1), placed=False), shown=True)
    assert not reading.unsettled


def test_a_mark_is_a_position_or_a_time() -> None:
    """A position is the server's own text and is never looked into."""
    assert behind("ops", "2-0", 5) == History("ops", after="2-0", limit=5)
    assert behind("ops", at_time(17)) == History("ops", after_ts=17)


def test_another_version_of_the_protocol_begins_anew() -> None:
    """Its positions are other ones, and what is counted without a position will never be found by them."""
    reading = ReadState("1-0", placed=False)
    reading.live(live(2, placed=False), shown=False)
    reading.restart("@5")
    assert (reading.position, reading.heard, reading.behind, reading.unsettled) == ("@5", "@5", False, False)
