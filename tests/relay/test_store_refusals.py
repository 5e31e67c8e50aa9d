"""A Redis that answers and refuses: nodes say so, judge nobody, and go on with what frees memory."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from nacl.signing import SigningKey
from redis import Redis

from conclave.protocol.v1 import admin, frames
from relay.app.node import Node
from relay.redis.keys import Keys
from relay.redis.node_registry import BEAT_SECONDS
from tests.support.metrics import scrape
from tests.support.moderation import REMOVED, REVOKED, ROOT, a_post, administer
from tests.support.nodes import node_object
from tests.support.peer import Peer, Peers, Refused
from tests.support.redis_server import RedisProcess
from tests.support.waiting import pause, wait_until

KEYS = Keys("conclave")
DEAD_AFTER_SECONDS = 1.0
ENDLESS = "while true do end"
UNAVAILABLE = "internal error: the relay cannot reach its store; try again in a few seconds"


@pytest.fixture
def fast_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nodes that beat ten times as often, and are dead after a second. Comes before the nodes."""
    monkeypatch.setattr("relay.cluster.membership.BEAT_SECONDS", BEAT_SECONDS / 10)
    monkeypatch.setattr("relay.redis.node_registry.BEAT_SECONDS", BEAT_SECONDS / 10)
    monkeypatch.setattr("relay.redis.node_registry._LONGEST_GAP_SECONDS", BEAT_SECONDS / 5)
    monkeypatch.setattr("relay.redis.node_registry.DEAD_AFTER_SECONDS", DEAD_AFTER_SECONDS)


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[RedisProcess]:
    server = RedisProcess(tmp_path, durable=False)
    await server.start()
    try:
        yield server
    finally:
        server.close()


@pytest.fixture
def store(server: RedisProcess) -> Iterator[Redis]:
    with Redis.from_url(server.url) as store:
        yield store


@pytest.fixture
async def nodes(server: RedisProcess, fast_time: None) -> AsyncIterator[list[Node]]:  # noqa: ARG001 - it comes first
    async with node_object(server.url, admins=ROOT) as one, node_object(server.url, admins=ROOT) as other:
        yield [one, other]


def url_of(node: Node) -> str:
    return f"ws://{node.address}/"


def _full(store: Redis) -> None:
    store.config_set("maxmemory", 1)


def _lacks_replicas(store: Redis) -> None:
    store.config_set("min-replicas-to-write", 1)


def _cannot_save(store: Redis) -> None:
    store.config_set("save", "3600 1")
    (Path(str(store.config_get("dir")["dir"])) / "dump.rdb").mkdir()
    store.bgsave()


def _lacks_permission(store: Redis) -> None:
    store.acl_setuser("default", enabled=True, nopass=True, commands=["-zadd"])


def _well(store: Redis) -> None:
    store.acl_setuser("default", enabled=True, nopass=True, commands=["+zadd"])
    store.config_set("maxmemory", 0)
    store.config_set("min-replicas-to-write", 0)
    store.config_set("save", "")
    store.config_set("stop-writes-on-bgsave-error", "no")


async def _who(observer: Peer, *present: Peer) -> bool:
    try:
        return await observer.who() == sorted(str(peer.path) for peer in present)
    except Refused:
        return False


@pytest.mark.parametrize(
    ("word", "refuse"),
    [("OOM", _full), ("NOREPLICAS", _lacks_replicas), ("MISCONF", _cannot_save), ("NOPERM", _lacks_permission)],
)
async def test_a_store_that_refuses_makes_nodes_unready_and_nobody_dead(
    nodes: list[Node], store: Redis, word: str, refuse: Callable[[Redis], None]
) -> None:
    """The heartbeats of all nodes are refused, so that one stands still says nothing about its node."""
    async with Peers() as peers:
        ann, bob = await peers.register(url_of(nodes[0]), "ann"), await peers.register(url_of(nodes[1]), "bob")
        names = [node.name for node in nodes]
        refuse(store)
        for node in nodes:
            await wait_until(
                lambda node=node: node.unready_reason == f"Redis refuses commands: {word}",  # type: ignore[misc]
                what="the node tells the word",
            )
            assert (await scrape(url_of(node)))("ready") == 0
        await pause(1.5 * DEAD_AFTER_SECONDS)
        assert await _who(ann, ann, bob), "nobody has gone"
        _well(store)
        await wait_until(lambda: all(node.is_ready for node in nodes), what="the nodes are ready again")
        assert await _who(ann, ann, bob)
        await ann.whisper(bob.path, "hi")
        await wait_until(lambda: bob.whispers, what="the whisper arrives")
        assert [node.name for node in nodes] == names, "no node was evicted"


async def test_a_busy_store_makes_nodes_unready(server: RedisProcess, nodes: list[Node], store: Redis) -> None:
    """Somebody's script takes longer than Redis lets others wait without an answer."""
    store.config_set("busy-reply-threshold", 50)
    async with Peers() as peers:
        ann = await peers.register(url_of(nodes[0]), "ann")
        with Redis.from_url(server.url) as other:
            blocked = asyncio.create_task(asyncio.to_thread(_run_for_ever, other))
            await wait_until(
                lambda: nodes[0].unready_reason == "Redis refuses commands: BUSY", what="the node tells the word"
            )
            store.script_kill()
            await blocked
        await wait_until(lambda: all(node.is_ready for node in nodes), what="the nodes are ready again")
        await wait_until(lambda: _who(ann, ann), what="the session is present")


def _run_for_ever(store: Redis) -> None:
    with pytest.raises(Exception, match="killed by user"):
        store.eval(ENDLESS, 0)


async def test_what_frees_memory_goes_on_at_the_limit(nodes: list[Node], store: Redis) -> None:
    """Otherwise nobody could make room, and nobody could be put out."""
    async with Peers() as peers:
        root = peers.keep(await Peer.login(url_of(nodes[0]), SigningKey.generate(), register=("root", "laptop")))
        ann, bob, cid, dan = [await peers.register(url_of(nodes[1]), name) for name in ("ann", "bob", "cid", "dan")]
        for channel in ("ops", "old"):
            await root.create(channel)
            for peer in (root, ann, bob, cid, dan):
                await peer.join(channel)
        await root.post("old", "x" * 1000)
        token = await root.invite("ops")
        _full(store)
        await wait_until(lambda: nodes[1].unready_reason == "Redis refuses commands: OOM", what="it is full")
        assert await ann.refusal(a_post("ops")) == UNAVAILABLE
        await administer(root, admin.DeleteChannel("old"))
        assert not store.keys("*:log"), "its messages are gone"
        await administer(root, admin.Kick("ops", "ann"))
        await administer(root, admin.Ban("ops", "bob"))
        await administer(root, admin.InviteRevoke(token))
        await administer(cid, admin.MachineRemove("laptop"))
        await administer(root, admin.UserRemove("dan"))
        assert await cid.wait_closed() == REVOKED
        assert await dan.wait_closed() == REMOVED
        assert not store.hexists(KEYS.users, "dan")
        assert store.hgetall(KEYS.due) == {}
        await ann.close()
        await wait_until(lambda: len(nodes[1].parts.sessions) == 1, what="ann has left")
        _well(store)
        await wait_until(lambda: all(node.is_ready for node in nodes), what="the nodes are ready again")
        await wait_until(lambda: _who(root, root, bob), what="those who left are gone")
        assert await root.who("ops") == [str(root.path)]


async def test_a_defect_is_internal_and_no_outage(redis_url: str, peers: Peers) -> None:
    """A retry would not help; the log has the command, and the others are served."""
    async with node_object(redis_url) as node:
        ann = await peers.register(url_of(node), "ann")
        with Redis.from_url(redis_url) as broken:
            broken.delete(KEYS.names)
            broken.set(KEYS.names, "no hash")
        text = await ann.refusal(frames.Join("ops"))
        assert text == "internal error: the relay failed to carry this out"
        seen = await scrape(url_of(node))
        assert seen("refusals_total", code="internal") == 1
        assert seen("redis_errors_total") >= 1
        assert node.is_ready
        with Redis.from_url(redis_url) as broken:
            broken.delete(KEYS.names)
            broken.rename(KEYS.machine_keys, "elsewhere")
            broken.set(KEYS.machine_keys, "no hash")
        with pytest.raises(Refused, match="the relay failed to carry this out"):
            await Peer.login(url_of(node), SigningKey.generate())
        assert (await scrape(url_of(node)))("logins_total", outcome="internal") == 1
        await peers.close()
