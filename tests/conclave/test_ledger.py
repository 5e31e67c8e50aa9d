"""The ledger's corners that a well-behaved server does not reach; test_follow.py has the rest."""

import pytest

from conclave.client.delivery_tracker import ECHO_ROWS, DeliveryTracker
from conclave.protocol.body import Body
from conclave.protocol.events import Message
from conclave.protocol.requests import History, Page, Row

BOB = "bob/desktop/y"


def row(number: int, words: str) -> Row:
    return Row(f"id-{number}", number, BOB, Body(text=words))


def live(words: str, number: int | None = None) -> Message:
    return Message("ops", BOB, Body(text=words), None if number is None else f"id-{number}", number)


def read(ledger: DeliveryTracker, *rows: Row, more: bool = False) -> list[str | None]:
    return [entry.body.text for entry in ledger.page(Page(rows, more))]


def test_a_ledger_reads_on_from_its_last_row() -> None:
    """From a time until there is one: whatever its page and the connection it came by."""
    ledger = DeliveryTracker(7)
    assert ledger.following("ops") == History("ops", after_ts=7, limit=500)
    read(ledger, row(8, "a"), row(9, "b"), more=True)
    ledger.joining(1)
    assert ledger.following("dev") == History("dev", after="id-9", limit=500)
    read(ledger)
    assert ledger.following("ops") == History("ops", after="id-9", limit=500)


def test_a_message_that_was_shown_live_is_not_shown_from_the_history() -> None:
    """However many pages later it comes there; and one that is equal to it is another message."""
    ledger = DeliveryTracker(0)
    assert ledger.live(live("ok"))
    assert ledger.ahead == 1
    assert read(ledger, row(1, "no"), more=True) == ["no"]
    assert read(ledger, row(2, "ok"), row(3, "ok")) == ["ok"]
    assert ledger.ahead == 0


def test_a_message_without_a_row_does_not_hide_a_later_one_with_the_same_words() -> None:
    """The original delivers what it failed to keep."""
    ledger = DeliveryTracker(0)
    assert ledger.live(live("ok"))
    assert read(ledger) == []
    assert read(ledger, row(5, "ok")) == ["ok"]


def test_only_the_end_of_the_history_says_that_a_message_has_no_row() -> None:
    """It may be on the next page."""
    ledger = DeliveryTracker(0)
    assert ledger.live(live("ok"))
    assert read(ledger, more=True) == []
    assert read(ledger, row(5, "ok")) == []


def test_a_message_without_a_row_is_shown_though_the_history_was_read_after_it_came() -> None:
    """It is not in there, so it was not shown yet."""
    ledger = DeliveryTracker(0)
    assert read(ledger, row(5, "ok")) == ["ok"]
    assert ledger.live(live("ok")) is None
    assert read(ledger) == []
    assert not ledger.settle(live("ok"))
    assert ledger.settle(live("ok"))


def test_after_a_newer_message_nothing_that_was_read_is_expected_live_any_more() -> None:
    """So a reader of a channel where everybody says `ok` does not read the history again for each of them."""
    ledger = DeliveryTracker(0)
    assert read(ledger, row(5, "ok"), row(6, "old")) == ["ok", "old"]
    assert ledger.live(live("new"))
    assert ledger.live(live("ok"))
    assert ledger.ahead == 2


def test_after_a_new_connection_nothing_that_was_read_is_expected_live_any_more() -> None:
    """What was on its way is lost with the old one."""
    ledger = DeliveryTracker(0)
    assert read(ledger, row(5, "ok")) == ["ok"]
    ledger.joining(1)
    assert ledger.live(live("ok"))


def test_the_memory_of_what_may_still_come_live_is_bounded() -> None:
    """Reading a week of history does not keep it."""
    ledger = DeliveryTracker(0)
    read(ledger, *(row(number, str(number)) for number in range(1, ECHO_ROWS + 11)))
    assert len(ledger._echo_order) == ECHO_ROWS
    assert len(ledger._echoes) == 2 * ECHO_ROWS
    assert ledger.live(live("5"))
    ledger.joining(1)
    assert (len(ledger._echo_order), len(ledger._echoes)) == (0, 0)


# --- Live messages that carry their position ---


def test_a_message_with_a_position_settles_itself() -> None:
    """Reading goes on behind it, and nothing waits to be met in the history."""
    ledger = DeliveryTracker(0)
    read(ledger, row(1, "a"))
    assert ledger.live(live("b", 2))
    assert ledger.following("ops") == History("ops", after="id-2", limit=500)
    assert ledger.ahead == 0


def test_a_message_with_a_position_is_known_by_it_and_not_by_its_words() -> None:
    """The copy of what the history has shown is left out, an equal message is not, and nothing has to be read."""
    ledger = DeliveryTracker(0)
    read(ledger, row(1, "ok"), row(2, "ok"))
    assert ledger.live(live("ok", 1)) is False
    assert ledger.live(live("ok", 2)) is False
    assert ledger.live(live("ok", 3)) is True


@pytest.mark.parametrize("number", [1, 2])
def test_a_copy_does_not_move_the_position_back(number: int) -> None:
    """What was shown from the history would be shown again."""
    ledger = DeliveryTracker(0)
    read(ledger, row(1, "a"), row(2, "b"))
    ledger.live(live("a", number))
    assert ledger.following("ops").after == "id-2"
