"""The tracker's corners that a well-behaved server does not reach; test_follow.py has the rest."""

import pytest

from conclave.client.delivery_tracker import ECHO_ROWS, DeliveryTracker
from conclave.client.marks import at_time
from conclave.protocol.body import Body
from conclave.protocol.events import Message
from conclave.protocol.requests import History, Page, Row

BOB = "bob/desktop/y"


def row(number: int, words: str) -> Row:
    return Row(f"id-{number}", number, BOB, Body(text=words))


def live(words: str, number: int | None = None) -> Message:
    return Message("ops", BOB, Body(text=words), None if number is None else f"id-{number}", number)


def read(tracker: DeliveryTracker, *rows: Row, more: bool = False) -> list[str | None]:
    return [entry.body.text for entry in tracker.page(Page(rows, more))]


def test_a_tracker_reads_on_from_its_last_row() -> None:
    """From a time until there is one: whatever its page and the connection it came by."""
    tracker = DeliveryTracker(at_time(7))
    assert tracker.next_page("ops") == History("ops", after_ts=7, limit=500)
    read(tracker, row(8, "a"), row(9, "b"), more=True)
    tracker.reconnected(1)
    assert tracker.next_page("dev") == History("dev", after="id-9", limit=500)
    read(tracker)
    assert tracker.next_page("ops") == History("ops", after="id-9", limit=500)


def test_a_message_that_was_shown_live_is_not_shown_from_the_history() -> None:
    """However many pages later it comes there; and one that is equal to it is another message."""
    tracker = DeliveryTracker(at_time(0))
    assert tracker.live(live("ok"))
    assert tracker.unplaced == 1
    assert read(tracker, row(1, "no"), more=True) == ["no"]
    assert read(tracker, row(2, "ok"), row(3, "ok")) == ["ok"]
    assert tracker.unplaced == 0


def test_a_message_without_a_row_does_not_hide_a_later_one_with_the_same_words() -> None:
    """The original delivers what it failed to keep."""
    tracker = DeliveryTracker(at_time(0))
    assert tracker.live(live("ok"))
    assert read(tracker) == []
    assert read(tracker, row(5, "ok")) == ["ok"]


def test_only_the_end_of_the_history_says_that_a_message_has_no_row() -> None:
    """It may be on the next page."""
    tracker = DeliveryTracker(at_time(0))
    assert tracker.live(live("ok"))
    assert read(tracker, more=True) == []
    assert read(tracker, row(5, "ok")) == []


def test_a_message_without_a_row_is_shown_though_the_history_was_read_after_it_came() -> None:
    """It is not in there, so it was not shown yet."""
    tracker = DeliveryTracker(at_time(0))
    assert read(tracker, row(5, "ok")) == ["ok"]
    assert tracker.live(live("ok")) is None
    assert read(tracker) == []
    assert tracker.take_echo(live("ok"))
    assert not tracker.take_echo(live("ok"))


def test_after_a_newer_message_nothing_that_was_read_is_expected_live_any_more() -> None:
    """So a reader of a channel where everybody says `ok` does not read the history again for each of them."""
    tracker = DeliveryTracker(at_time(0))
    assert read(tracker, row(5, "ok"), row(6, "old")) == ["ok", "old"]
    assert tracker.live(live("new"))
    assert tracker.live(live("ok"))
    assert tracker.unplaced == 2


def test_after_a_new_connection_nothing_that_was_read_is_expected_live_any_more() -> None:
    """Messages in flight are lost with the old connection."""
    tracker = DeliveryTracker(at_time(0))
    assert read(tracker, row(5, "ok")) == ["ok"]
    tracker.reconnected(1)
    assert tracker.live(live("ok"))


def test_the_memory_of_what_may_still_come_live_is_bounded() -> None:
    """Reading a week of history does not keep it."""
    tracker = DeliveryTracker(at_time(0))
    read(tracker, *(row(number, str(number)) for number in range(1, ECHO_ROWS + 11)))
    assert len(tracker._echo_order) == ECHO_ROWS
    assert len(tracker._echoes) == 2 * ECHO_ROWS
    assert tracker.live(live("5"))
    tracker.reconnected(1)
    assert (len(tracker._echo_order), len(tracker._echoes)) == (0, 0)


# --- Live messages that carry their position ---


def test_a_message_with_a_position_settles_itself() -> None:
    """Reading goes on behind it, and nothing waits to be met in the history."""
    tracker = DeliveryTracker(at_time(0))
    read(tracker, row(1, "a"))
    assert tracker.live(live("b", 2))
    assert tracker.next_page("ops") == History("ops", after="id-2", limit=500)
    assert tracker.unplaced == 0


def test_a_message_with_a_position_is_known_by_it_and_not_by_its_words() -> None:
    """The copy of what the history has shown is left out, an equal message is not, and nothing has to be read."""
    tracker = DeliveryTracker(at_time(0))
    read(tracker, row(1, "ok"), row(2, "ok"))
    assert tracker.live(live("ok", 1)) is False
    assert tracker.live(live("ok", 2)) is False
    assert tracker.live(live("ok", 3)) is True


@pytest.mark.parametrize("number", [1, 2])
def test_a_copy_does_not_move_the_position_back(number: int) -> None:
    """Messages shown from the history would be shown again."""
    tracker = DeliveryTracker(at_time(0))
    read(tracker, row(1, "a"), row(2, "b"))
    tracker.live(live("a", number))
    assert tracker.next_page("ops").after == "id-2"
