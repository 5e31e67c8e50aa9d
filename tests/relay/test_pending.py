"""Work that stays pending until it was done."""

from relay.cluster.pending import Pending


def test_what_was_taken_stays_until_it_is_done() -> None:
    pending: Pending[str] = Pending()
    pending.add("ops", "c1", "ann")
    batch = pending.batch()
    assert [(group, list(entries)) for group, entries in batch.items()] == [("ops", ["c1"])]
    assert len(pending) == 1
    pending.done(batch)
    assert not pending


def test_what_is_added_again_while_it_is_done_stays() -> None:
    """The second removal may be the one that failed."""
    pending: Pending[str] = Pending()
    pending.add("ops", "c1", "ann")
    batch = pending.batch()
    pending.add("ops", "c1", "ann")
    pending.done(batch)
    assert len(pending) == 1


def test_what_is_discarded_is_not_done_later() -> None:
    pending: Pending[str] = Pending()
    pending.add("ops", "c1", "ann")
    pending.discard("ops", "c1")
    pending.discard("dev", "c1")
    assert not pending
    assert pending.batch() == {}


def test_a_batch_is_bounded_in_groups_entries_and_weight() -> None:
    pending: Pending[int] = Pending()
    for group in range(300):
        pending.add(f"g{group}", "c", 1)
    assert len(pending.batch()) == 256
    crowded: Pending[int] = Pending()
    for number in range(1000):
        crowded.add("", str(number), 100)
    assert len(crowded.batch()[""]) == 256
    assert len(crowded.batch(weight=lambda value: value)[""]) == 41
