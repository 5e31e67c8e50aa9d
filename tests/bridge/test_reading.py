"""The account of one channel: nothing is skipped, and nothing is shown twice that was not read on purpose."""

from conclave.client.delivery_tracker import UNPLACED_MESSAGES, DeliveryTracker, MissedRows
from conclave.client.marks import at_time, history_after
from conclave.protocol.body import Body
from conclave.protocol.events import Message
from conclave.protocol.requests import History, Row

ME = "ann/laptop/me"
BOB = "bob/laptop/main"


def row(number: int, text: str = "", sender: str = BOB) -> Row:
    return Row(id=f"{number}-0", ts=number, from_=sender, body=Body(text=text or f"text {number}"))


def live(number: int, text: str = "", *, positioned: bool = True) -> Message:
    return Message(
        channel="ops",
        from_=BOB,
        body=Body(text=text or f"text {number}"),
        id=f"{number}-0" if positioned else None,
        ts=number if positioned else None,
    )


def counted(tracker: DeliveryTracker, rows: list[Row], own: str = ME) -> MissedRows:
    count = tracker.missed(own, keep=50)
    count.add(rows)
    return count


def test_what_is_shown_moves_the_watermark() -> None:
    """A restart continues behind it."""
    tracker = DeliveryTracker("1-0", positioned=True)
    tracker.live(live(2), shown=True)
    assert (tracker.position, tracker.received, tracker.behind) == ("2-0", "2-0", False)


def test_a_muted_message_holds_the_watermark_back() -> None:
    """Raising the level must not make what was said meanwhile disappear."""
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
    """The server does not deliver them to their session, so that they are not there live says nothing."""
    tracker = DeliveryTracker("1-0", positioned=True)
    assert counted(tracker, [row(2, sender=ME), row(3)]).rows == [row(3)]


def test_what_was_shown_from_the_history_is_not_shown_again_live() -> None:
    """A message that is posted between the join and the tracker of the history comes both ways."""
    tracker = DeliveryTracker("1-0", positioned=True)
    tracker.show(counted(tracker, [row(2)]))
    assert tracker.live(live(2)) is False
    assert tracker.position == "2-0"
    assert tracker.live(live(3))


def test_without_positions_a_copy_is_told_by_its_words_only_while_it_may_come() -> None:
    """A v1 server tells no ids. Somebody who says "ok" twice must still be heard twice."""
    tracker = DeliveryTracker(at_time(0), positioned=False)
    tracker.show(counted(tracker, [row(2, "ok")]))
    assert tracker.live(live(2, "ok", positioned=False)) is None
    assert tracker.take_echo(live(2, "ok", positioned=False))
    assert tracker.live(live(3, "ok", positioned=False))
    tracker.show(counted(tracker, [row(4, "well")]))
    tracker.forget_echoes()
    assert tracker.live(live(5, "well", positioned=False))


def test_messages_without_a_position_are_found_in_the_history() -> None:
    """Until then the watermark stays: reporting something twice is the safe side."""
    tracker = DeliveryTracker("1-0", positioned=False)
    tracker.live(live(2, positioned=False), shown=True)
    assert (tracker.position, tracker.unplaced) == ("1-0", 1)
    tracker.place([row(2), row(3)], ME)
    assert (tracker.position, tracker.unplaced) == ("2-0", 0)
    assert counted(tracker, [row(3)]).rows == [row(3)]


def test_after_a_loss_only_what_did_not_come_live_was_missed() -> None:
    """The rows since the last position contain what was heard and not settled yet."""
    tracker = DeliveryTracker("1-0", positioned=False)
    tracker.live(live(2, positioned=False), shown=True)
    assert counted(tracker, [row(2), row(3)]).rows == [row(3)]


def test_a_count_that_is_broken_off_has_moved_nothing() -> None:
    """The connection may be lost between two pages: the next one must find all of it missed again."""
    tracker = DeliveryTracker("1-0", positioned=False)
    tracker.live(live(2, positioned=False), shown=True)
    assert counted(tracker, [row(2), row(3), row(4)]).count == 2
    assert (tracker.position, tracker.received, tracker.unplaced) == ("1-0", "1-0", 1)
    assert counted(tracker, [row(2), row(3), row(4)]).count == 2


def test_it_starts_behind_what_was_said_a_moment_before() -> None:
    """A time is up to a second early. What was said in that second never comes live, and must not be waited for."""
    tracker = DeliveryTracker(at_time(0), positioned=False)
    tracker.live(live(3, positioned=False), shown=True)
    tracker.start(counted(tracker, [row(2), row(3), row(4)]))
    assert (tracker.position, tracker.unplaced) == ("4-0", 0)
    tracker.live(live(4, positioned=False), shown=True)
    assert not tracker.unplaced, "it was on its way when the history was read"
    tracker.live(live(5, positioned=False), shown=True)
    tracker.place([row(5)], ME)
    assert tracker.position == "5-0"


def test_what_one_said_under_an_earlier_handle_is_one_s_own() -> None:
    """The handle's present holder writes other messages, and those were missed."""
    tracker = DeliveryTracker("1-0", positioned=False)
    tracker.sent(ME, Body(text="mine"))
    tracker.live(live(3, positioned=False), shown=True)
    mine, another = row(2, "mine", sender=ME), row(4, "not mine", sender=ME)
    assert counted(tracker, [mine, row(3), another], "ann/laptop/me-2").rows == [another]
    tracker.place([mine, row(3), another], "ann/laptop/me-2")
    assert tracker.position == "3-0"


def test_the_account_of_what_has_no_position_is_bounded() -> None:
    """The history may lack what was heard: the session still runs for days. What is given up is not taken as shown."""
    tracker = DeliveryTracker("1-0", positioned=False)
    for number in range(2, UNPLACED_MESSAGES + 2):
        tracker.live(live(number, positioned=False), shown=True)
    assert not tracker.behind
    tracker.live(live(0, positioned=False), shown=True)
    assert (tracker.behind, tracker.unplaced, tracker.position) == (True, 0, "1-0")


def test_a_mark_is_a_position_or_a_time() -> None:
    """A position is the server's own text and is never looked into."""
    assert history_after("ops", "2-0", 5) == History("ops", after="2-0", limit=5)
    assert history_after("ops", at_time(17)) == History("ops", after_ts=17)


def test_another_version_of_the_protocol_begins_anew() -> None:
    """Its positions are other ones, and what is counted without a position will never be found by them."""
    tracker = DeliveryTracker("1-0", positioned=False)
    tracker.live(live(2, positioned=False), shown=False)
    tracker.restart("@5")
    assert (tracker.position, tracker.received, tracker.behind, tracker.unplaced) == ("@5", "@5", False, 0)
