"""The ledger's corners that a well-behaved server does not reach; test_follow.py has the rest."""

from cli.ledger import ECHO_ROWS, PAGE_ROWS, Ledger
from conclave.model import Plain, SessionPath
from conclave.v1.frames import ChannelMsg, HistoryMessage

BOB = SessionPath("bob", "desktop", "y")


def row(ts_ms: int, body: str) -> HistoryMessage:
    return HistoryMessage(BOB, ts_ms, Plain(body))


def live(body: str) -> ChannelMsg:
    return ChannelMsg("ops", BOB, Plain(body))


def read_all(ledger: Ledger, rows: list[HistoryMessage]) -> list[str]:
    """Read a history page by page to its end, as a server of the original kind gives it out."""
    shown: list[str] = []
    for _ in range(1000):
        page = [entry for entry in rows if entry.ts_ms > ledger.read_from][:PAGE_ROWS]
        fresh = ledger.page(page)
        if fresh is None:
            return shown
        shown += [entry.payload.text for entry in fresh if isinstance(entry.payload, Plain)]
    raise AssertionError("reading does not come to an end")


def test_a_message_without_a_row_does_not_hide_a_later_one_with_the_same_words() -> None:
    """The original delivers what it failed to keep."""
    ledger = Ledger(0)
    assert ledger.live(live("ok"))
    assert read_all(ledger, []) == []
    assert read_all(ledger, [row(5, "ok")]) == ["ok"]


def test_a_message_without_a_row_is_shown_though_the_history_was_read_after_it_came() -> None:
    """It is not in there, so it was not shown yet."""
    ledger = Ledger(0)
    assert read_all(ledger, [row(5, "ok")]) == ["ok"]
    assert not ledger.live(live("ok"))
    assert read_all(ledger, [row(5, "ok")]) == []
    assert ledger.settle(live("ok"))
    assert not ledger.settle(live("ok"))


def test_after_a_newer_message_nothing_that_was_read_is_expected_live_any_more() -> None:
    """So a reader of a channel where everybody says `ok` does not read the history again for each of them."""
    ledger = Ledger(0)
    assert read_all(ledger, [row(5, "ok"), row(6, "old")]) == ["ok", "old"]
    assert ledger.live(live("new"))
    assert ledger.live(live("ok"))
    assert ledger.ahead == 2


def test_a_full_page_that_ends_within_a_millisecond_loses_none_of_it() -> None:
    """Asking for what is newer than its last row would skip the rest of that millisecond."""
    rows = [row(10 + number // 300, str(number)) for number in range(1400)]
    assert read_all(Ledger(0), rows) == [str(number) for number in range(1400)]


def test_a_millisecond_with_more_rows_than_a_page_does_not_stop_the_reader() -> None:
    """The original cannot give out the rest of it; what follows must come."""
    rows = [row(10, str(number)) for number in range(PAGE_ROWS + 100)] + [row(11, "after")]
    assert read_all(Ledger(0), rows) == [*map(str, range(PAGE_ROWS)), "after"]


def test_the_memory_of_what_may_still_come_live_is_bounded() -> None:
    """Reading a week of history does not keep it."""
    ledger = Ledger(0)
    read_all(ledger, [row(number, str(number)) for number in range(1, ECHO_ROWS + 11)])
    assert ledger.live(live("5"))
    ledger.joined()
    assert len(ledger._echo_order) == 0
