"""post.lua: the order of ids, the retention of the log, and the head that nodes of other versions write."""

from collections.abc import Iterator

import pytest
from redis import Redis

from relay.redis import scripts
from relay.redis.channel_log import GROUP_ROWS
from tests.support.waiting import pause

KEYS = ("log", "head", "live")
FENCE = "0"
KEEP_MS = 6_400
PERIOD_MS = 100
"""The time between two trims of a log that keeps messages for so long."""


@pytest.fixture
def redis(redis_url: str) -> Iterator[Redis]:
    with Redis.from_url(redis_url, decode_responses=True) as redis:
        yield redis


def post(redis: Redis, payload: bytes = b"x", *, keep: int = KEEP_MS, group_bytes: int = 1 << 20) -> str:
    """Post a message. Returns its id."""
    args = ("ann/laptop/main", payload, 100_000, keep, GROUP_ROWS, group_bytes, 0, 1000, "", FENCE)
    return str(redis.eval(scripts.POST.text, len(KEYS), *KEYS, *args))


def order(message_id: str) -> tuple[int, int]:
    ms, _, count = message_id.partition("-")
    return int(ms), int(count)


def now_ms(redis: Redis) -> int:
    seconds, microseconds = redis.time()
    return int(seconds) * 1000 + int(microseconds) // 1000


def test_the_head_is_what_every_version_reads(redis: Redis) -> None:
    """Nodes of two versions post to one channel during a rolling update."""
    first = post(redis)
    last = post(redis, b"12345")
    assert redis.hgetall("head") == {"first": first, "tip": last, "weight": "6" if order(last)[1] else "5"}


@pytest.mark.parametrize("ahead_ms", [0, 1_000_000])
def test_an_id_follows_the_tip_if_there_is_no_log(redis: Redis, ahead_ms: int) -> None:
    """The log has expired, and the clock of the server may have gone back since."""
    tip = f"{now_ms(redis) + ahead_ms}-7"
    redis.hset("head", mapping={"tip": tip, "weight": 10})
    ids = [post(redis) for _ in range(3)]
    assert order(tip) < order(ids[0]) < order(ids[1]) < order(ids[2])
    assert redis.pttl("log") > 0
    assert redis.xlen("log") == len(ids)


def test_an_id_follows_a_log_that_is_ahead_of_the_clock(redis: Redis) -> None:
    """The millisecond of the last message counts on, up to the size of a group."""
    ms = now_ms(redis) + 1_000_000
    redis.xadd("log", {"f": "bob/laptop/main", "p": "y"}, id=f"{ms}-{GROUP_ROWS - 3}")
    redis.hset("head", mapping={"tip": f"{ms}-{GROUP_ROWS - 3}", "weight": 1})
    ids = [post(redis) for _ in range(4)]
    assert ids == [f"{ms}-{GROUP_ROWS - 2}", f"{ms}-{GROUP_ROWS - 1}", f"{ms + 1}-0", f"{ms + 1}-1"]


def test_a_group_has_no_more_bytes_than_a_page_may_exceed(redis: Redis) -> None:
    """The bytes of a millisecond are counted anew in the next one."""
    ms = now_ms(redis) + 1_000_000
    redis.xadd("log", {"f": "bob/laptop/main", "p": "y" * 40}, id=f"{ms}-0")
    redis.hset("head", mapping={"tip": f"{ms}-0", "weight": 40})
    ids = [post(redis, b"x" * 40, group_bytes=100) for _ in range(4)]
    assert ids == [f"{ms}-1", f"{ms + 1}-0", f"{ms + 1}-1", f"{ms + 2}-0"]


async def test_a_message_outlives_the_time_for_which_it_is_kept(redis: Redis) -> None:
    """The log expires as a whole, so it has to be kept for its last message, though not each one renews that."""
    left = []
    for _ in range(60):
        with redis.pipeline() as both:
            args = ("a/b/c", "x", 1000, KEEP_MS, GROUP_ROWS, 1000, 0, 1000, "", FENCE)
            both.eval(scripts.POST.text, len(KEYS), *KEYS, *args)
            both.pttl("log")
            left.append(both.execute()[1])
        await pause(0.005)
    assert min(left) >= KEEP_MS
    assert max(left) <= KEEP_MS + PERIOD_MS
    assert len({left[at + 1] > left[at] for at in range(len(left) - 1)}) == 2, "some posts renew it, others do not"


async def test_messages_that_are_too_old_are_trimmed(redis: Redis) -> None:
    """A channel in which somebody always talks never expires."""
    for _ in range(500):
        post(redis, keep=300)
    await pause(0.4)
    post(redis, keep=300)
    assert redis.xlen("log") < 200, "all but the last piece of the stream"
