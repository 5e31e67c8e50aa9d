"""Messages over two nodes: delivered once, in one order, to their recipients only, and kept."""

import asyncio
import time

import pytest
from aiohttp import WSMsgType
from nacl.signing import SigningKey
from redis import Redis

from conclave.model import Plain, SessionPath
from conclave.protocol.v1 import admin, frames
from conclave.protocol.v1.codec import encode_payload
from relay.app.config import NodeConfig, RedisUrl
from relay.model.message import PAGE_BYTES
from relay.redis.channel_log import GROUP_ROWS
from relay.redis.keys import Keys
from relay.services.messages import PAGE_ROWS
from relay.services.server_admins import ServerAdmins
from tests.support.clock import stand_still
from tests.support.nodes import running_node
from tests.support.peer import Peer, Peers, text
from tests.support.waiting import wait_until

KEYS = Keys("conclave")


def channel_id(store: Redis, name: str) -> str:
    found = store.hget(f"{KEYS.directory}:names", name)
    assert isinstance(found, bytes)
    return found.decode()


async def create_and_join(channel: str, creator: Peer, *others: Peer) -> None:
    await creator.create(channel)
    for peer in (creator, *others):
        await peer.join(channel)


async def test_a_post_reaches_every_session_but_its_sender(pair: tuple[str, str], peers: Peers) -> None:
    """Another session of the same user gets it, too; the sender reads it in history."""
    ann, bob = await peers.register(pair[0], "ann"), await peers.register(pair[1], "bob")
    second = await other_machine(peers, ann, pair[1])
    await create_and_join("ops", ann, second, bob)
    await ann.post("ops", "hi")
    await bob.post("ops", "ho")
    await wait_until(lambda: (len(bob.bodies), len(second.bodies)) == (1, 2), what="everything arrived")
    await wait_until(lambda: ann.bodies, what="the answer arrived")
    assert (ann.bodies, bob.bodies, second.bodies) == (["ho"], ["hi"], ["hi", "ho"])
    assert await ann.history("ops") == ["hi", "ho"]


async def other_machine(peers: Peers, peer: Peer, url: str) -> Peer:
    """Log the same user in from a second machine."""
    key = SigningKey.generate()
    await peer.ask(frames.Admin(admin.MachineAdd("second", bytes(key.verify_key))), frames.Ack)
    return await peers.login(url, key)


async def test_all_readers_see_the_order_of_history(pair: tuple[str, str], peers: Peers) -> None:
    """With any number of sessions that post at once, on any nodes."""
    readers = [await peers.register(pair[i % 2], f"reader{i}") for i in range(4)]
    writers = [await peers.register(pair[i % 2], f"writer{i}") for i in range(4)]
    await create_and_join("ops", *readers, *writers)

    async def write(writer: Peer) -> None:
        for n in range(50):
            await writer.post("ops", f"{writer.path.user}:{n}")

    await asyncio.gather(*map(write, writers))
    await wait_until(lambda: all(len(reader.messages) >= 200 for reader in readers), what="everything arrived")
    history = await readers[0].history("ops")
    assert len(set(history)) == 200
    for reader in readers:
        assert reader.bodies == history
    for writer in writers:
        own = [body for body in history if body.startswith(f"{writer.path.user}:")]
        assert own == [f"{writer.path.user}:{n}" for n in range(50)]


async def test_a_sender_cannot_use_the_path_of_another(pair: tuple[str, str], peers: Peers) -> None:
    """The authenticated path is delivered and kept, not the one that a client writes into a post or a whisper."""
    ann, bob = await peers.register(pair[0], "ann"), await peers.register(pair[1], "bob")
    await create_and_join("ops", ann, bob)
    await ann.ask(frames.ChannelMsg("ops", bob.path, Plain("hi")), frames.Ack)
    await ann.ask(frames.Whisper(bob.path, bob.path, Plain("psst")), frames.Ack)
    await wait_until(lambda: bob.messages and bob.whispers, what="both arrived")
    assert (bob.messages[0].from_, bob.whispers[0].from_) == (ann.path, ann.path)
    assert [row.from_ for row in await bob.page("ops")] == [ann.path]


async def test_a_session_that_has_not_joined_neither_posts_nor_reads(pair: tuple[str, str], peers: Peers) -> None:
    """Being a member is not enough: the session has to have joined."""
    ann = await peers.register(pair[0], "ann")
    await ann.create("ops")
    say = frames.ChannelMsg("ops", ann.path, Plain("hi"))
    for request in (say, frames.ReadSince("ops", 0)):
        assert await ann.refusal(request) == "unauthorized: not a member of channel `ops`"


async def test_a_whisper_reaches_one_session_and_is_not_kept(pair: tuple[str, str], peers: Peers) -> None:
    """On the same node or the other, in order."""
    ann, bob = await peers.register(pair[0], "ann"), await peers.register(pair[1], "bob")
    cid = await peers.register(pair[0], "cid")
    for n in range(20):
        await ann.whisper(bob.path, str(n))
        await ann.whisper(cid.path, str(n))
    await wait_until(lambda: len(bob.whispers) == len(cid.whispers) == 20, what="all whispers arrived")
    assert [text(whisper.payload) for whisper in bob.whispers] == [str(n) for n in range(20)]
    assert {whisper.target for whisper in cid.whispers} == {cid.path}
    assert ann.whispers == []


async def test_a_whisper_to_an_absent_session_is_refused(pair: tuple[str, str], peers: Peers) -> None:
    """A path is exact; a session that has left is absent; and a session cannot whisper to itself."""
    ann, bob = await peers.register(pair[0], "ann"), await peers.register(pair[1], "bob")
    await bob.close()
    await wait_until(lambda: offline(ann, bob.path), what="bob is gone")
    for target in (SessionPath("bob", "laptop", "mai"), SessionPath("", "", ""), SessionPath("ann/laptop", "main", "")):
        assert await offline(ann, target)
    say = frames.Whisper(ann.path, ann.path, Plain("hi"))
    assert await ann.refusal(say) == "malformed frame: cannot whisper to your own session"


async def offline(peer: Peer, target: SessionPath) -> bool:
    request = frames.Whisper(peer.path, target, Plain("hi"))
    try:
        return await peer.refusal(request) == f"not found: session `{target}` is not online"
    except AssertionError:
        return False


# --- History ---


async def test_pages_have_every_row_once_when_hundreds_share_a_millisecond(
    redis_url: str, url: str, peers: Peers
) -> None:
    """Clients know only milliseconds: they ask again with the last row's, and must neither miss nor repeat a row."""
    ann = await peers.register(url, "ann")
    await create_and_join("ops", ann)
    stand_still(redis_url, "ops")
    said = [str(n) for n in range(1300)]
    for first in range(0, len(said), 100):
        await asyncio.gather(*(ann.post("ops", body) for body in said[first : first + 100]))
    pages = []
    since = 0
    while page := await ann.page("ops", since):
        pages.append(page)
        since = page[-1].ts_ms
    rows = [row for page in pages for row in page]
    assert [text(row.payload) for row in rows] == said
    assert len({row.ts_ms for row in rows}) < 10, "many shared a millisecond"
    assert all(len(page) <= PAGE_ROWS + GROUP_ROWS for page in pages)
    assert all(len(page) >= PAGE_ROWS for page in pages[:-1])


async def test_a_page_is_bounded_in_bytes_and_goes_on_where_it_ended(url: str, peers: Peers) -> None:
    """A page of large messages must fit the frame that carries it."""
    ann = await peers.register(url, "ann")
    await create_and_join("ops", ann)
    bodies = [chr(ord("a") + n) * 700_000 for n in range(10)]
    await asyncio.gather(*(ann.post("ops", body) for body in bodies))
    first = await ann.page("ops")
    assert 1 < len(first) < 10
    assert sum(len(text(row.payload)) for row in first) <= PAGE_BYTES + 1024 * 1024
    assert await ann.history("ops") == bodies


@pytest.mark.parametrize("since", [-(2**63), -1, 0])
async def test_a_time_before_the_first_row_reads_from_the_beginning(url: str, peers: Peers, since: int) -> None:
    """Zero and everything before it mean: all that is kept."""
    ann = await peers.register(url, "ann")
    await create_and_join("ops", ann)
    await ann.post("ops", "hi")
    assert [text(row.payload) for row in await ann.page("ops", since)] == ["hi"]


async def test_the_far_future_has_no_history_yet(url: str, peers: Peers) -> None:
    """The greatest number that fits the wire is a point in time like any other."""
    ann = await peers.register(url, "ann")
    await create_and_join("ops", ann)
    await ann.post("ops", "hi")
    last = (await ann.page("ops"))[-1].ts_ms
    assert [await ann.page("ops", since) for since in (last, last + 1, 2**63 - 1)] == [(), (), ()]
    assert await ann.page("ops", last - 1) != ()


async def test_what_is_older_than_the_retention_is_not_read(redis_url: str, url: str, peers: Peers) -> None:
    """Also while it is still stored: the retention is a promise."""
    kept_ms = NodeConfig("", 0, RedisUrl(""), ServerAdmins({})).retention.ms
    ann = await peers.register(url, "ann")
    await create_and_join("ops", ann)
    now = int(time.time() * 1000)
    with Redis.from_url(redis_url) as store:
        log = KEYS.log(channel_id(store, "ops"))
        body = encode_payload(Plain("old"))
        for age in (kept_ms + 60_000, kept_ms - 60_000):
            store.xadd(log, {"f": "ann/laptop/main", "p": body}, id=f"{now - age}-0")
        assert len(await ann.page("ops")) == 1
        await ann.post("ops", "new")
        assert await ann.history("ops") == ["old", "new"]
        assert store.xlen(log) == 3, "the row was still stored"


async def test_a_new_session_reads_the_history_before_its_join(pair: tuple[str, str], peers: Peers) -> None:
    """A session that has joined may read the history from its beginning; live delivery starts with the join."""
    ann, bob = await peers.register(pair[0], "ann"), await peers.register(pair[1], "bob")
    await create_and_join("ops", ann)
    for n in range(5):
        await ann.post("ops", str(n))
    await bob.join("ops")
    await ann.post("ops", "live")
    await wait_until(lambda: bob.bodies, what="the live message arrived")
    assert bob.bodies == ["live"]
    assert await bob.history("ops") == ["0", "1", "2", "3", "4", "live"]


# --- Slow readers ---


async def test_a_slow_reader_is_dropped_with_the_reason_and_others_get_everything(redis_url: str, peers: Peers) -> None:
    """A stalled client must cost neither unbounded memory nor another session's message."""
    async with running_node(redis_url, max_message_bytes=64 * 1024) as node:
        ann, good = await peers.register(node, "ann"), await peers.register(node, "good")
        slow = await peers.register(node, "slow")
        await create_and_join("ops", ann, good, slow)
        assert slow._reading is not None
        slow._reading.cancel()
        body = "." * 60_000
        sent = 0
        while sent < 1000 and str(slow.path) in await ann.who():
            for _ in range(10):
                await ann.post("ops", body)
            sent += 10
        assert sent < 1000, "the slow reader was not dropped"
        await wait_until(lambda: len(good.messages) == sent, what="the other session got everything")
        last = b""
        while (message := await slow.ws.receive(timeout=10)).type is WSMsgType.BINARY:
            last = message.data
        assert b"slow consumer: outbound queue overflowed" in last
        await peers.close()
