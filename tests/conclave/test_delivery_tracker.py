"""The delivery tracker of one channel: nothing is skipped, and nothing is shown twice that was not read on purpose."""

import pytest

from conclave.client.delivery_tracker import ECHO_ROWS, UNPLACED_MESSAGES, DeliveryTracker, MissedRows
from conclave.client.marks import at_time, history_after
from conclave.protocol.body import Body
from conclave.protocol.events import Message
from conclave.protocol.requests import History, Page, Row

ME = "ann/laptop/me"
BOB = "bob/laptop/main"


def row(number: int, text: str = "", sender: str = BOB) -> Row:
    return Row(id=f"{number}-0", ts=number, from_=sender, body=Body(text=text or f"text {number}"))


def live(number: int, text: str = "") -> Message:
    return Message("ops", BOB, Body(text=text or f"text {number}"), id=f"{number}-0", ts=number)


def unplaced(text: str) -> Message:
    """A live message of a v1 server, which carries no position."""
    return Message("ops", BOB, Body(text=text))


def read(tracker: DeliveryTracker, *rows: Row, more: bool = False) -> list[str | None]:
    """Take a page of history; returns the texts to show."""
    return [entry.body.text for entry in tracker.page(Page(rows, more))]


def counted(tracker: DeliveryTracker, rows: list[Row], own: str = ME) -> MissedRows:
    """Take rows of history as missed ones, of which 50 are kept."""
    count = tracker.missed(own, keep=50)
    count.add(rows)
    return count


# --- History, page by page, as `conclave tail` reads it ---


def test_a_tracker_reads_on_from_its_last_row() -> None:
    """From a time until there is one; the page and the connection do not matter."""
    tracker = DeliveryTracker(at_time(7))
    assert tracker.next_page("ops") == History("ops", after_ts=7, limit=500)
    read(tracker, row(8, "a"), row(9, "b"), more=True)
    tracker.reconnected(1)
    assert tracker.next_page("dev") == History("dev", after="9-0", limit=500)
    read(tracker)
    assert tracker.next_page("ops") == History("ops", after="9-0", limit=500)


def test_a_message_that_was_shown_live_is_not_shown_from_the_history() -> None:
    """On any later page; a second one with the same text is another message."""
    tracker = DeliveryTracker(at_time(0))
    assert tracker.live(unplaced("ok"))
    assert tracker.unplaced == 1
    assert read(tracker, row(1, "no"), more=True) == ["no"]
    assert read(tracker, row(2, "ok"), row(3, "ok")) == ["ok"]
    assert tracker.unplaced == 0


def test_a_message_without_a_row_does_not_hide_a_later_one_with_the_same_text() -> None:
    """The original delivers what it failed to keep."""
    tracker = DeliveryTracker(at_time(0))
    assert tracker.live(unplaced("ok"))
    assert read(tracker) == []
    assert read(tracker, row(5, "ok")) == ["ok"]


def test_only_the_end_of_the_history_says_that_a_message_has_no_row() -> None:
    """It may be on the next page."""
    tracker = DeliveryTracker(at_time(0))
    assert tracker.live(unplaced("ok"))
    assert read(tracker, more=True) == []
    assert read(tracker, row(5, "ok")) == []


def test_a_message_without_a_row_is_shown_though_the_history_was_read_after_it_came() -> None:
    """It is not in there, so it was not shown yet."""
    tracker = DeliveryTracker(at_time(0))
    assert read(tracker, row(5, "ok")) == ["ok"]
    assert tracker.live(unplaced("ok")) is None
    assert read(tracker) == []
    assert tracker.take_echo(unplaced("ok"))
    assert not tracker.take_echo(unplaced("ok"))


def test_after_a_newer_message_nothing_that_was_read_is_expected_live_any_more() -> None:
    """So a channel full of `ok` does not make a reader read the history again for each of them."""
    tracker = DeliveryTracker(at_time(0))
    assert read(tracker, row(5, "ok"), row(6, "old")) == ["ok", "old"]
    assert tracker.live(unplaced("new"))
    assert tracker.live(unplaced("ok"))
    assert tracker.unplaced == 2


def test_after_a_new_connection_nothing_that_was_read_is_expected_live_any_more() -> None:
    """Messages in flight are lost with the old connection."""
    tracker = DeliveryTracker(at_time(0))
    assert read(tracker, row(5, "ok")) == ["ok"]
    tracker.reconnected(1)
    assert tracker.live(unplaced("ok"))


def test_the_memory_of_what_may_still_come_live_is_bounded() -> None:
    """Reading a week of history does not keep it."""
    tracker = DeliveryTracker(at_time(0))
    read(tracker, *(row(number, str(number)) for number in range(1, ECHO_ROWS + 11)))
    assert len(tracker._echo_order) == ECHO_ROWS
    assert len(tracker._echoes) == 2 * ECHO_ROWS
    assert tracker.live(unplaced("5"))
    tracker.reconnected(1)
    assert (len(tracker._echo_order), len(tracker._echoes)) == (0, 0)


# --- Live messages that carry their position ---


def test_a_message_with_a_position_needs_no_lookup() -> None:
    """Reading continues after it, and it is not awaited in the history."""
    tracker = DeliveryTracker(at_time(0))
    read(tracker, row(1, "a"))
    assert tracker.live(live(2, "b"))
    assert tracker.next_page("ops") == History("ops", after="2-0", limit=500)
    assert tracker.unplaced == 0


def test_a_message_with_a_position_is_recognised_by_it_and_not_by_its_text() -> None:
    """The copy of what the history has shown is left out, an equal message is not, and nothing has to be read."""
    tracker = DeliveryTracker(at_time(0))
    read(tracker, row(1, "ok"), row(2, "ok"))
    assert tracker.live(live(1, "ok")) is False
    assert tracker.live(live(2, "ok")) is False
    assert tracker.live(live(3, "ok")) is True


@pytest.mark.parametrize("number", [1, 2])
def test_a_copy_does_not_move_the_position_back(number: int) -> None:
    """Messages shown from the history would be shown again."""
    tracker = DeliveryTracker(at_time(0))
    read(tracker, row(1, "a"), row(2, "b"))
    tracker.live(live(number, "a"))
    assert tracker.next_page("ops").after == "2-0"


# --- What was missed, as the bridge counts it ---


def test_what_is_shown_moves_the_watermark() -> None:
    """A restart continues behind it."""
    tracker = DeliveryTracker("1-0", positioned=True)
    tracker.live(live(2), shown=True)
    assert (tracker.position, tracker.received, tracker.behind) == ("2-0", "2-0", False)


def test_a_muted_message_holds_the_watermark_back() -> None:
    """A raised level must not make the messages in between disappear."""
    tracker = DeliveryTracker("1-0", positioned=True)
    tracker.live(live(2), shown=False)
    tracker.live(live(3), shown=True)
    assert (tracker.position, tracker.received) == ("1-0", "3-0")
    tracker.caught_up([row(2), row(3)], more=False)
    tracker.live(live(4), shown=True)
    assert tracker.position == "4-0"


def test_a_page_of_several_leaves_the_rest_for_the_next() -> None:
    """Live traffic between two pages must not jump over the second."""
    tracker = DeliveryTracker("1-0", positioned=True)
    tracker.skip(counted(tracker, []), "9-0")
    tracker.caught_up([row(2), row(3)], more=True)
    tracker.live(live(10), shown=True)
    assert (tracker.position, tracker.received) == ("3-0", "10-0")
    tracker.caught_up([row(4), row(10)], more=False)
    assert (tracker.position, tracker.behind) == ("10-0", False)


def test_one_s_own_messages_are_not_missed() -> None:
    """The server does not deliver them to their session, so their absence among live messages means nothing."""
    tracker = DeliveryTracker("1-0", positioned=True)
    assert counted(tracker, [row(2, sender=ME), row(3)]).rows == [row(3)]


def test_a_message_shown_from_the_history_is_not_shown_again_live() -> None:
    """A message that is posted between the join and the read of the history comes both ways."""
    tracker = DeliveryTracker("1-0", positioned=True)
    tracker.show(counted(tracker, [row(2)]))
    assert tracker.live(live(2)) is False
    assert tracker.position == "2-0"
    assert tracker.live(live(3))


def test_without_positions_a_copy_is_recognised_by_its_text_while_it_may_come() -> None:
    """A v1 server sends no ids. Two messages "ok" must still be shown twice."""
    tracker = DeliveryTracker(at_time(0), positioned=False)
    tracker.show(counted(tracker, [row(2, "ok")]))
    assert tracker.live(unplaced("ok")) is None
    assert tracker.take_echo(unplaced("ok"))
    assert tracker.live(unplaced("ok"))
    tracker.show(counted(tracker, [row(4, "well")]))
    tracker.forget_echoes()
    assert tracker.live(unplaced("well"))


def test_messages_without_a_position_are_found_in_the_history() -> None:
    """Until then the watermark stays: reporting something twice is the safe side."""
    tracker = DeliveryTracker("1-0", positioned=False)
    tracker.live(unplaced("text 2"), shown=True)
    assert (tracker.position, tracker.unplaced) == ("1-0", 1)
    tracker.place([row(2), row(3)], ME)
    assert (tracker.position, tracker.unplaced) == ("2-0", 0)
    assert counted(tracker, [row(3)]).rows == [row(3)]


def test_after_a_loss_only_messages_that_did_not_come_live_were_missed() -> None:
    """The rows since the last position include live messages whose position is not known yet."""
    tracker = DeliveryTracker("1-0", positioned=False)
    tracker.live(unplaced("text 2"), shown=True)
    assert counted(tracker, [row(2), row(3)]).rows == [row(3)]


def test_a_count_that_is_broken_off_has_moved_nothing() -> None:
    """The connection may be lost between two pages: the next one must find all of it missed again."""
    tracker = DeliveryTracker("1-0", positioned=False)
    tracker.live(unplaced("text 2"), shown=True)
    assert counted(tracker, [row(2), row(3), row(4)]).count == 2
    assert (tracker.position, tracker.received, tracker.unplaced) == ("1-0", "1-0", 1)
    assert counted(tracker, [row(2), row(3), row(4)]).count == 2


def test_it_starts_after_the_messages_of_the_moment_before() -> None:
    """A time is up to a second early. Messages of that second never come live, and must not be awaited."""
    tracker = DeliveryTracker(at_time(0), positioned=False)
    tracker.live(unplaced("text 3"), shown=True)
    tracker.start(counted(tracker, [row(2), row(3), row(4)]))
    assert (tracker.position, tracker.unplaced) == ("4-0", 0)
    tracker.live(unplaced("text 4"), shown=True)
    assert not tracker.unplaced, "it was on its way when the history was read"
    tracker.live(unplaced("text 5"), shown=True)
    tracker.place([row(5)], ME)
    assert tracker.position == "5-0"


def test_messages_sent_under_an_earlier_handle_are_one_s_own() -> None:
    """The handle's present holder writes other messages, and those were missed."""
    tracker = DeliveryTracker("1-0", positioned=False)
    tracker.sent(ME, Body(text="mine"))
    tracker.live(unplaced("text 3"), shown=True)
    mine, another = row(2, "mine", sender=ME), row(4, "not mine", sender=ME)
    assert counted(tracker, [mine, row(3), another], "ann/laptop/me-2").rows == [another]
    tracker.place([mine, row(3), another], "ann/laptop/me-2")
    assert tracker.position == "3-0"


def test_the_memory_of_messages_without_a_position_is_bounded() -> None:
    """The history may lack live messages, and the session runs for days. Forgotten ones do not count as shown."""
    tracker = DeliveryTracker("1-0", positioned=False)
    for number in range(2, UNPLACED_MESSAGES + 2):
        tracker.live(unplaced(f"text {number}"), shown=True)
    assert not tracker.behind
    tracker.live(unplaced("text 0"), shown=True)
    assert (tracker.behind, tracker.unplaced, tracker.position) == (True, 0, "1-0")


def test_a_mark_is_a_position_or_a_time() -> None:
    """A position is the server's own text and is never looked into."""
    assert history_after("ops", "2-0", 5) == History("ops", after="2-0", limit=5)
    assert history_after("ops", at_time(17)) == History("ops", after_ts=17)


def test_another_version_of_the_protocol_starts_from_the_beginning() -> None:
    """Its positions are different, and messages without a position would never be found by them."""
    tracker = DeliveryTracker("1-0", positioned=False)
    tracker.live(unplaced("text 2"), shown=False)
    tracker.restart("@5")
    assert (tracker.position, tracker.received, tracker.behind, tracker.unplaced) == ("@5", "@5", False, 0)
