"""The scripts of a channel's log after a failover: what they record, and what they answer to whom."""

import random
from collections.abc import Iterator
from typing import Any

import pytest
from redis import Redis

from relay.model.message import START, order
from relay.observability.metrics import Metrics
from relay.redis import scripts
from relay.redis.channel_log import GROUP_ROWS, LogPage
from relay.redis.unreadable import Unreadable
from tests.support.waiting import pause

LOG, HEAD, LIVE, SUBS = "log", "head", "live", "subs"
KEEP_MS = 60_000
UNREADABLE = Unreadable(Metrics(()))


class Channel:
    """One channel in a server that forgets its last writes when told so."""

    def __init__(self, redis: Redis) -> None:
        self.redis = redis
        self.posted: list[str] = []
        """The id of every message that was posted, lost or not."""
        self._kept: dict[str, bytes | None] = {}

    def post(self, seen: str | None = None, not_before: int = 0) -> str:
        args = ("ann/laptop/main", b"x", 1000, KEEP_MS, GROUP_ROWS, 1 << 20, 0, 1000, "", "0")
        more = () if seen is None else (seen, not_before)
        self.posted.append(self.run(scripts.POST, (LOG, HEAD, LIVE), *args, *more).decode())
        return self.posted[-1]

    def save(self) -> None:
        """Copy all that a replica has now."""
        self._kept = {key: self.redis.dump(key) for key in (LOG, HEAD)}

    def fail_over(self) -> None:
        """Forget what was written since `save`."""
        self.redis.delete(LOG, HEAD)
        for key, dump in self._kept.items():
            if dump is not None:
                self.redis.restore(key, 0, dump)

    def seen(self, position: str) -> None:
        self.run(scripts.HOLE, (LOG, HEAD, LIVE), position, KEEP_MS)

    def page(self, after: str, rows: int = 500, *, whole: str = "") -> LogPage:
        return LogPage.parse(self.run(scripts.PAGE, (LOG, HEAD), after, rows, 1 << 20, whole, KEEP_MS), UNREADABLE)

    def history(self, after: str = "", before: str = "", rows: int = 500) -> LogPage:
        reply = self.run(scripts.HISTORY, (LOG, HEAD), after, before, rows, 1 << 20, KEEP_MS)
        return LogPage.parse_history(reply, UNREADABLE, forwards=after != "")

    def recovers(self, since: str) -> bool:
        reply = self.run(scripts.ENTER, (HEAD, SUBS, LOG, LIVE), "d", "n bob/laptop/main", since, KEEP_MS, "")
        return bool(reply[2])

    def story(self, after: str, rows: int) -> list[str]:
        """Read page by page to the end. Returns the ids, and `gap` where the log is not known to continue."""
        told: list[str] = []
        more = True
        while more:
            page = self.page(after, rows)
            told += [] if page.known else ["gap"]
            told += [row.id for row in page.rows]
            after, more = page.rows[-1].id if page.rows else after, page.more
        return told

    def run(self, script: scripts.Script, keys: tuple[str, ...], *args: Any) -> Any:
        return self.redis.eval(script.text, len(keys), *keys, *args)


@pytest.fixture
def channel(redis_url: str) -> Iterator[Channel]:
    with Redis.from_url(redis_url) as redis:
        yield Channel(redis)


async def test_whatever_is_lost_is_told_to_all_readers_and_nothing_else_is(channel: Channel) -> None:
    """Many failovers, seen by nodes that come back in any order, before or after the next messages."""
    seed = random.SystemRandom().randrange(10**6)
    chance = random.Random(seed)  # noqa: S311 - chance, not secrets
    kept = [channel.post() for _ in range(chance.randrange(12))]
    for _ in range(8):
        channel.save()
        lost = [channel.post() for _ in range(chance.randrange(1, 5))]
        channel.fail_over()
        # The last one was seen by somebody, or nobody knows of it.
        seen = [*chance.sample(lost[:-1], chance.randrange(len(lost))), lost[-1]]
        chance.shuffle(seen)
        early = chance.randrange(len(seen) + 1)
        for position in seen[:early]:
            channel.seen(position)
        await pause(0.003)  # a failover takes longer than a millisecond
        knows = seen[early] if early < len(seen) and chance.random() < 0.5 else None
        kept += [channel.post(None if n else knows) for n in range(chance.randrange(4))]
        for position in seen[early:]:
            channel.seen(position)
    assert sorted(channel.posted, key=order) == channel.posted, "ids rise"
    for position in (START, *channel.posted):
        expected, told = _expected(channel.posted, set(kept), position), channel.story(position, chance.randrange(1, 9))
        assert told == expected, (seed, position)
        assert channel.recovers(position) == ("gap" not in expected), (seed, position)


def _expected(posted: list[str], kept: set[str], position: str) -> list[str]:
    told: list[str] = []
    for each in posted[posted.index(position) + 1 if position in posted else 0 :]:
        if each in kept:
            told.append(each)
        elif told[-1:] != ["gap"]:
            told.append("gap")
    return told


def test_a_post_records_what_its_node_has_seen(channel: Channel) -> None:
    """Before its message, and with an empty publication, so that every node reads the log from its own position."""
    first = channel.post()
    channel.save()
    lost = [channel.post() for _ in range(3)]
    channel.fail_over()
    with channel.redis.pubsub(ignore_subscribe_messages=True) as listener:  # type: ignore[no-untyped-call]
        listener.subscribe(LIVE)
        new = channel.post(lost[-1])
        received = [listener.get_message(timeout=1) for _ in range(3)]
    data = [each["data"] for each in received if each is not None]
    assert data[0] == b""
    assert data[1].split(b"\0")[:2] == [new.encode(), lost[-1].encode()], "the predecessor is the last lost one"
    assert channel.story(first, 9) == channel.story(lost[0], 9) == ["gap", new]
    assert channel.story(lost[-1], 9) == [new]


def test_a_reader_of_milliseconds_gets_one_page_across_a_hole(channel: Channel) -> None:
    """v1 cannot be told, and takes a short page for the last one."""
    first = channel.post()
    channel.save()
    lost = channel.post()
    channel.fail_over()
    new = channel.post(lost)
    page = channel.page(START, whole="sealed")
    assert ([row.id for row in page.rows], page.more) == ([first, new], False)


@pytest.mark.parametrize("seen", [False, True])
def test_a_clock_that_is_behind_cannot_repeat_an_id(channel: Channel, seen: bool) -> None:
    """A node that knows the former clock bounds the id, whether or not it has seen what is lost."""
    channel.save()
    first, ahead = channel.post(), int(channel.post().partition("-")[0]) + 30_000
    lost = channel.post(first, ahead)
    assert order(lost) >= (ahead, 0)
    channel.fail_over()
    new = channel.post("" if not seen else lost, ahead + 5)
    assert order(new) > order(lost)
    channel.seen(lost)
    assert channel.story(lost, 9) == [new]
    assert channel.story(START, 9) == ["gap", new]
    later = [channel.post() for _ in range(3)]
    assert channel.story(lost, 9) == [new, *later], "ids go on from there"


def test_a_log_that_has_expired_is_lost_to_those_who_had_not_read_it(channel: Channel) -> None:
    """Nothing is lost for a session that had received the last message."""
    posted = [channel.post() for _ in range(3)]
    channel.redis.delete(LOG)
    assert channel.story(posted[-1], 9) == []
    assert channel.story(posted[0], 9) == channel.story(START, 9) == ["gap"]
    new = [channel.post() for _ in range(2)]
    assert channel.story(posted[-1], 9) == new
    assert channel.story(posted[0], 9) == channel.story(START, 9) == ["gap", *new]
    assert [channel.recovers(each) for each in (START, *posted, *new)] == [False, False, False, True, True, True]
    channel.seen(posted[-1])
    assert channel.story(posted[-1], 9) == new, "a message that was trimmed is no hole"


def test_a_log_outlives_its_head(channel: Channel) -> None:
    """A head that was evicted is not the beginning of the channel."""
    posted = [channel.post() for _ in range(3)]
    channel.redis.delete(HEAD)
    for position in posted:
        channel.seen(position)
    assert channel.page(START).tip == channel.history().tip == posted[-1]
    assert channel.run(scripts.MARK, (HEAD, LOG))[1].decode() == posted[-1]
    assert (
        channel.run(scripts.ENTER, (HEAD, SUBS, LOG, LIVE), "d", "n b/c/d", "", KEEP_MS, "")[0].decode() == posted[-1]
    )
    new = channel.post()
    assert channel.story(posted[0], 9) == [*posted[1:], new]
    assert channel.story(START, 9) == [*posted, new]


def test_the_list_of_holes_is_bounded(channel: Channel) -> None:
    """Of too many the two oldest become one; those of a time that is not kept any more are forgotten."""
    kept = [channel.post()]
    for _ in range(40):
        channel.save()
        lost = channel.post()
        channel.fail_over()
        channel.seen(lost)
        kept.append(channel.post())
    holes = channel.redis.hget(HEAD, "holes")
    assert holes is not None
    assert len(holes.split()) == 2 * 32
    told = channel.story(START, 100)
    assert [each for each in told if each != "gap"] == kept
    assert told[-6:] == ["gap", kept[-3], "gap", kept[-2], "gap", kept[-1]]
    channel.save()
    lost = channel.post()
    channel.fail_over()
    channel.run(scripts.HOLE, (LOG, HEAD, LIVE), lost, -10_000)
    assert channel.redis.hget(HEAD, "holes") == f"{kept[-1]} {lost}".encode()


def test_an_untrimmed_beginning_survives_a_loss_of_everything(channel: Channel) -> None:
    """A replica that had nothing of the channel yet takes over."""
    channel.save()
    lost = [channel.post() for _ in range(3)]
    channel.fail_over()
    channel.seen(lost[-1])
    assert channel.story(START, 9) == ["gap"]
    assert channel.page(lost[-1]).known
    new = channel.post()
    assert channel.story(START, 9) == channel.story(lost[0], 9) == ["gap", new]
    assert channel.story(lost[-1], 9) == [new]
    assert channel.history().gaps == (START,)
