"""The pages of a replica that may be used instead of the primary's."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from conclave.model import SessionPath
from relay.model.message import Message
from relay.observability.metrics import Metrics
from relay.redis import connect, scripts
from relay.redis.channel_log import DELETED, LogPage, LogTip, Retention
from relay.redis.client import RedisClient
from relay.redis.keys import Keys
from relay.redis.node_registry import NodeRegistry
from relay.redis.read_replica import ReadReplica
from relay.redis.replica_log import ReplicaLog, _is_complete
from tests.support.replica import Pair, replicated

ANN = SessionPath("ann", "laptop", "main")


def page(*ids: str, tip: str) -> LogPage:
    return LogPage(
        [Message(each, int(each.partition("-")[0]), "", str(ANN), b"") for each in ids],
        more=False,
        known=True,
        tip=tip,
        version=1,
    )


@pytest.mark.parametrize(
    ("read", "mark", "whole_ms", "complete"),
    [
        (page("5-0", tip="5-0"), LogTip(9, "5-0", 1), False, True),
        (page("5-0", tip="5-0"), LogTip(9, "5-1", 1), False, False),
        (page("5-0", tip="5-0"), LogTip(9, "10-0", 1), False, False),
        (page("5-1", tip="5-1"), LogTip(9, "5-0", 1), False, True),
        (page(tip="0-0"), LogTip(9, "0-0", 1), False, True),
        (page(tip="0-0"), LogTip(9, "5-0", 1), False, False),
        (page("5-0", tip="5-0"), LogTip(6, "5-0", 1), True, True),
        (page("5-0", tip="5-0"), LogTip(5, "5-0", 1), True, False),
        (page("5-0", tip="5-0"), LogTip(5, "5-0", 1), False, True),
        (page(tip="5-0"), LogTip(5, "5-0", 1), True, True),
    ],
)
def test_a_page_is_complete_if_it_leads_to_the_primarys_end(
    read: LogPage, mark: LogTip, whole_ms: bool, complete: bool
) -> None:
    """For a reader by milliseconds, also no further message may be possible in its last millisecond."""
    assert _is_complete(read, mark, whole_ms=whole_ms) is complete


@asynccontextmanager
async def replica_log(pair: Pair) -> AsyncIterator[ReplicaLog]:
    primary = RedisClient(connect.real(pair.primary.url), timeout=2.0, metrics=Metrics(scripts.NAMES))
    replica = RedisClient(connect.real(pair.replica.url), timeout=2.0, metrics=Metrics(scripts.NAMES), replica=True)
    keys = Keys("conclave")
    near = ReadReplica(primary, replica, keys, NodeRegistry(primary, keys))
    retention = Retention(ms=3_600_000, rows=1000, group_bytes=1_000_000)
    serving = [asyncio.create_task(primary.serve()), asyncio.create_task(near.serve(lambda _: None))]
    log = ReplicaLog(primary, keys, retention, near)
    try:
        # Scripts are loaded by a first call that does not count.
        await log.page("none", "0-0", rows=1, size=1)
        await log.history("none", None, None, rows=1, size=1)
        yield log
    finally:
        for task in serving:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


async def test_the_membership_version_of_a_page_is_the_primarys(tmp_path: Path) -> None:
    """A page may come from a replica that does not have a removal yet; its version may not."""
    async with replicated(tmp_path) as pair, replica_log(pair) as log:
        await log.append("c", str(ANN), b"one", version=0, fence="0")
        await pair.in_step()
        pair.link.stall()
        await log.publish_version("c", 7)
        before = pair.calls(pair.replica)
        read = await log.page("c", "0-0", rows=10, size=1000)
        piece = await log.history("c", None, None, rows=10, size=1000)
        assert [row.payload for row in (*read.rows, *piece.rows)] == [b"one", b"one"]
        assert (read.version, piece.version) == (7, 7)
        assert pair.calls(pair.replica) == before + 2
        await log.delete("c")
        assert (await log.page("c", "0-0", rows=10, size=1000)).version == DELETED
        assert (await log.history("c", None, None, rows=10, size=1000)).version == DELETED
        pair.link.flow()


async def test_a_page_before_the_end_needs_no_comparison_with_the_primary(tmp_path: Path) -> None:
    """All pages of a long log but the last come from the replica."""
    async with replicated(tmp_path) as pair, replica_log(pair) as log:
        ids = [(await log.append("c", str(ANN), b"%d" % n, version=0, fence="0")).decode() for n in range(10)]
        await pair.in_step()
        pair.link.stall()
        last = (await log.append("c", str(ANN), b"late", version=0, fence="0")).decode()
        far = pair.calls(pair.primary)
        read = await log.page("c", ids[2], rows=3, size=1000)
        assert ([row.id for row in read.rows], read.more) == (ids[3:6], True)
        before = await log.history("c", None, ids[9], rows=3, size=1000)
        assert ([row.id for row in before.rows], before.more) == (ids[6:9], True)
        assert pair.calls(pair.primary) == far + 2, "two marks and no page"
        rest = await log.page("c", ids[8], rows=3, size=1000)
        assert ([row.id for row in rest.rows], rest.more) == ([ids[9], last], False)
        unknown = await log.page("c", last, rows=3, size=1000)
        assert (unknown.rows, unknown.known) == ([], True)
        pair.link.flow()
