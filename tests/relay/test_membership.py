"""A node's membership of its cluster: it comes back whole after whatever happens to Redis or to itself."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest
from redis import Redis
from redis.asyncio import Redis as AsyncRedis

from relay.app.node import Node
from relay.cluster.membership import State
from relay.observability.metrics import Metrics
from relay.redis import connect, node_registry, scripts
from relay.redis.client import RedisClient
from relay.redis.keys import Keys
from relay.redis.node_registry import NodeRegistry
from relay.sessions.session import Session
from tests.support.blocking import BlockedCommand
from tests.support.nodes import node_object
from tests.support.socketless import Socketless
from tests.support.v2_peer import V2Peers
from tests.support.waiting import pause, wait_until

KEYS = Keys("conclave")


class Crowd:
    """A node with sessions, and what Redis has of them."""

    def __init__(self, node: Node, redis_url: str) -> None:
        self.node = node
        self.socketless = Socketless(node, redis_url)
        self.sessions: list[Session] = []
        self.redis: Any = AsyncRedis.from_url(redis_url, decode_responses=True)

    async def fill(self, sessions: int, *, each: int = 5, channels: int = 20) -> None:
        self.sessions = await self.socketless.fill(sessions, each=each, channels=channels)

    async def lose_records(self) -> None:
        """Remove everything that nodes have written about sessions, as a failover may."""
        for pattern in ("conclave:{c:*}:subs", "conclave:{s:*}", "conclave:{n:*}:sessions", "conclave:{n:*}:channels"):
            keys = [key async for key in self.redis.scan_iter(pattern, count=1000)]
            if keys:
                await self.redis.delete(*keys)

    async def cut_connections(self) -> None:
        """Close every connection of the node, which makes new ones."""
        await self.redis.client_kill_filter(_type="normal", skipme=True)

    async def evict(self) -> None:
        """Declare the node dead."""
        await self.redis.zadd(KEYS.nodes, {self.node.name: -1})

    async def is_recorded(self) -> bool:
        """Tell whether Redis has exactly the records of the sessions that are open, under the node's present name."""
        open_sessions = [session for session in self.sessions if session.close_reason is None]
        name = self.node.name
        listed = await self.redis.hgetall(KEYS.sessions(name))
        if listed != {each.connection: each.path_text for each in open_sessions}:
            return False
        for each in open_sessions:
            if await self.redis.hgetall(KEYS.lease(each.path)) != {each.connection: f"{each.generation} {name}"}:
                return False
        expected: dict[str, dict[str, str]] = {}
        for each in open_sessions:
            for channel_id in each.joined.values():
                expected.setdefault(channel_id, {})[each.connection] = f"{name} {each.path_text}"
        found = {}
        async for key in self.redis.scan_iter("conclave:{c:*}:subs", count=1000):
            found[key.split("{c:")[1].split("}")[0]] = await self.redis.hgetall(key)
        return found == expected and set(expected) <= await self.redis.smembers(KEYS.channels(name))


@asynccontextmanager
async def crowd(redis_url: str, sessions: int, **settings: Any) -> AsyncIterator[Crowd]:
    async with node_object(redis_url, **settings) as node:
        crowd = Crowd(node, redis_url)
        await crowd.fill(sessions)
        yield crowd
        await crowd.redis.aclose()


@contextmanager
def counted_commands(node: Node, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Yield the list of the commands that the node sends, scripts by their names."""
    client, commands = node.parts.client, []
    assert isinstance(client, RedisClient)
    submit = client._submit

    def noting(command: Any, script: Any) -> Any:
        commands.append(str(command[0]) if script is None else script.name)
        return submit(command, script)

    with monkeypatch.context() as patch:
        patch.setattr(client, "_submit", noting)
        yield commands


@contextmanager
def refused(redis_url: str, *commands: str) -> Iterator[None]:
    """Have Redis refuse commands."""
    with Redis.from_url(redis_url) as store:
        store.execute_command("ACL", "SETUSER", "default", *(f"-{command}" for command in commands))
        try:
            yield
        finally:
            store.execute_command("ACL", "SETUSER", "default", *(f"+{command}" for command in commands))


# --- Coming back ---


async def test_more_records_than_commands_may_wait_come_back(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node that asks for everything at once overruns its own client, and takes that for an outage, for ever."""
    async with crowd(redis_url, 300) as node:
        monkeypatch.setattr("relay.redis.client._WAITING_COMMANDS", 600)
        await node.lose_records()
        with counted_commands(node.node, monkeypatch) as commands:
            await node.cut_connections()
            await wait_until(node.is_recorded, what="all records are there again")
        assert len(commands) < 3 * len(node.sessions), "several sessions of a channel are one command"
        assert not [session for session in node.sessions if session.close_reason is not None]


async def test_a_return_that_fails_half_way_is_finished(redis_url: str) -> None:
    """Until then the node takes no new sessions, and says why."""
    async with crowd(redis_url, 20) as node:
        former = node.node.name
        with refused(redis_url, "sadd"):
            await node.evict()
            await wait_until(lambda: node.node.name != former, what="the node has a new name")
            await wait_until(lambda: node.node.parts.membership.state is State.ANNOUNCED, what="its inbox is read")
            await pause(3)  # longer than the next heartbeat, which is accepted
            assert node.node.closed_reason == "writing the records of its sessions again"
        await wait_until(node.is_recorded, what="all records are there again")
        await wait_until(lambda: node.node.is_ready, what="the node is ready")
        await wait_until(lambda: _is_gone(node, former), what="nothing has the former name")


async def _is_gone(node: Crowd, name: str) -> bool:
    return not [key async for key in node.redis.scan_iter(f"conclave:{{n:{name}}}*")] and (
        await node.redis.zscore(KEYS.nodes, name) is None
    )


async def test_records_that_could_not_be_removed_are_removed_by_one_worker(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The end of an outage and a heartbeat took from one queue until it was empty, and the process ended."""
    monkeypatch.setattr("relay.cluster.membership.BEAT_SECONDS", 0.01)
    async with crowd(redis_url, 200) as node:
        with refused(redis_url, "hdel"):
            await asyncio.gather(*(node.socketless.services.presence.close(each) for each in node.sessions[::2]))
            del node.sessions[::2]
            assert node.node.parts.records.pending > 0
        await node.evict()
        await node.cut_connections()
        await wait_until(node.is_recorded, what="the records are those of the others")


async def test_stray_records_are_removed(redis_url: str) -> None:
    """Redis may carry out a login and a join of a lost connection behind their end."""
    async with crowd(redis_url, 3) as node:
        gone = node.sessions.pop()
        entry = await node.redis.hgetall(KEYS.subscribers(next(iter(gone.joined.values()))))
        channel_ids = list(gone.joined.values())
        await node.socketless.services.presence.close(gone)
        name = node.node.name
        await node.redis.hset(KEYS.lease(gone.path), gone.connection, f"{gone.generation} {name}")
        await node.redis.hset(KEYS.sessions(name), gone.connection, gone.path_text)
        for channel_id in channel_ids:
            await node.redis.hset(KEYS.subscribers(channel_id), gone.connection, entry[gone.connection])
            await node.redis.sadd(KEYS.channels(name), channel_id)
        assert not await node.is_recorded()
        await node.cut_connections()
        await wait_until(node.is_recorded, what="the strays are gone")


async def test_a_session_that_could_not_leave_is_unlisted_later(redis_url: str) -> None:
    """It stays connected, so its end does not remove the entry."""
    async with crowd(redis_url, 2) as node:
        session = node.sessions[0]
        with refused(redis_url, "hdel"):
            with pytest.raises(Exception, match="store"):
                await node.socketless.services.channels.leave(session, "c0")
            assert not await node.is_recorded()
        await wait_until(node.is_recorded, what="it is not listed any more")
        await node.socketless.join(session, ["c0"])
        await node.node.parts.records.settle()
        assert await node.is_recorded()


# --- Judging others ---


@asynccontextmanager
async def two_members(url: str) -> AsyncIterator[tuple[NodeRegistry, NodeRegistry]]:
    client = RedisClient(connect.real(url), timeout=5.0, metrics=Metrics(scripts.NAMES))
    serving = asyncio.create_task(client.serve())
    one, other = NodeRegistry(client, KEYS), NodeRegistry(client, KEYS)
    for member in (one, other):
        await member.join()
        await member.beat()
    try:
        yield one, other
    finally:
        serving.cancel()
        await asyncio.wait([serving])


async def test_a_node_that_could_not_beat_itself_declares_no_other_dead(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first heartbeat after an outage found all others standing still, before anything had forgiven them."""
    monkeypatch.setattr(node_registry, "DEAD_AFTER_SECONDS", 0.4)
    monkeypatch.setattr(node_registry, "_LONGEST_GAP_SECONDS", 0.2)
    async with two_members(redis_url) as (one, other):
        await one.beat()
        await pause(0.6)
        await one.beat()
        assert one.dead() == {}

        async def stands_still() -> bool:
            await one.beat()
            return other.node in one.dead()

        await wait_until(stands_still, what="the other is declared dead while one's own beats are accepted")


# --- Housekeeping ---


async def test_the_removal_of_a_dead_node_holds_up_no_heartbeat(redis_url: str) -> None:
    """A node with thousands of sessions takes its remover longer than a heartbeat may be late."""
    async with node_object(redis_url) as node:
        blocked = BlockedCommand(node, scripts.LEASE_BURY)
        with Redis.from_url(redis_url) as store:
            store.hset(KEYS.sessions("ghost"), mapping={f"c{i}": f"user{i}/laptop/main" for i in range(10)})
            store.zadd(KEYS.nodes, {"ghost": -1})
            await wait_until(blocked.reached.is_set, what="the removal has begun")
            before = node.parts.registry.last_beat
            await wait_until(lambda: node.parts.registry.last_beat != before, timeout=10, what="a heartbeat")
            blocked.release()
            await wait_until(lambda: store.zscore(KEYS.nodes, "ghost") is None, what="the ghost is removed")


async def test_the_removal_of_a_dead_node_goes_on_where_it_failed(redis_url: str) -> None:
    """Also with many sessions: what is done is taken off its lists."""
    async with crowd(redis_url, 30) as node:
        name = node.node.name
        lists = await node.redis.hgetall(KEYS.sessions(name)), await node.redis.smembers(KEYS.channels(name))
    ghost = "0123456789ab"
    async with AsyncRedis.from_url(redis_url, decode_responses=True) as store, node_object(redis_url) as other:
        sessions, channel_ids = lists
        for connection, path in sessions.items():
            await store.hset(f"conclave:{{s:{path}}}", connection, f"1 {ghost}")
            for channel_id in channel_ids:
                await store.hset(KEYS.subscribers(channel_id), connection, f"{ghost} {path}")
        await store.hset(KEYS.sessions(ghost), mapping=sessions)
        await store.sadd(KEYS.channels(ghost), *channel_ids)
        with refused(redis_url, "srem"):
            await store.zadd(KEYS.nodes, {ghost: -1})
            await wait_until(lambda: _no_subscribers(store), what="the subscribers are removed")
            assert await store.exists(KEYS.channels(ghost), KEYS.sessions(ghost)) == 2
        await store.delete(KEYS.sweep(ghost))
        await wait_until(lambda: _no_keys_of(store, ghost), what="everything is removed")
        assert not [key async for key in store.scan_iter("conclave:{s:*}")], "leases are left"
        assert other.is_ready


async def _no_subscribers(store: Any) -> bool:
    return not [key async for key in store.scan_iter("conclave:{c:*}:subs")]


async def _no_keys_of(store: Any, node: str) -> bool:
    return not [key async for key in store.scan_iter(f"conclave:{{n:{node}}}*")] and (
        await store.zscore(KEYS.nodes, node) is None
    )


async def test_thousands_of_channels_are_left_in_a_few_commands(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One at a time, with a wait for Redis each, they held up the heartbeat for 22 s."""
    monkeypatch.setattr("relay.channels.fanout.UNSUBSCRIBE_AFTER_SECONDS", 0.0)
    async with node_object(redis_url) as node:
        socketless = Socketless(node, redis_url)
        (session,) = await socketless.open(["ann"])
        names = [f"c{number}" for number in range(1200)]
        await socketless.create(session, names)
        await socketless.join(session, names)
        with counted_commands(node, monkeypatch) as commands, Redis.from_url(redis_url) as store:
            await socketless.services.presence.close(session)
            await wait_until(lambda: len(node.parts.fanout) == 0, what="the node has unsubscribed from all of them")
            await wait_until(lambda: store.pubsub_channels("*:live") == [], what="no topic is subscribed")
            await wait_until(lambda: store.scard(KEYS.channels(node.name)) == 0, what="no channel is recorded")
        assert commands.count("SREM") <= 6


async def test_an_operation_does_not_wait_for_the_announcements_of_others(redis_url: str) -> None:
    """One user's loop of machines made everybody's kick take half a minute."""
    async with node_object(redis_url) as node:
        socketless = Socketless(node, redis_url)
        ann, bob = await socketless.open(["ann", "bob"])
        await socketless.create(ann, ["ops"])
        await socketless.join(bob, ["ops"])
        with Redis.from_url(redis_url) as store:
            for number in range(100):
                store.hset(KEYS.due, f"other{number}", f"changed 1 {number}")
            await socketless.services.moderation.kick(ann, "ops", "bob")
            assert store.hlen(KEYS.due) >= 100, "the kick has announced what others left"
            await wait_until(lambda: "ops" not in bob.joined, what="bob has lost the channel")
            await wait_until(lambda: store.hlen(KEYS.due) == 0, what="the janitor announces the rest")


# --- Idle sessions ---


async def test_the_time_for_which_a_node_was_held_up_is_no_idle_time(
    redis_url: str, v2_peers: V2Peers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the clients sent meanwhile is in their sockets, and was not read yet."""
    monkeypatch.setattr("relay.cluster.janitor.BEAT_SECONDS", 0.1)
    async with node_object(redis_url, idle_seconds=1.0) as node:
        ann = await v2_peers.register(f"ws://{node.address}/", "ann")
        await pause(0.3)
        time.sleep(1.5)  # noqa: ASYNC251 - the process is stopped
        await pause(0.3)
        await ann.ask("ping")
        assert not ann.is_closed
        await v2_peers.close()


# --- Which channels a user is in ---


async def test_the_directory_knows_which_channels_a_user_is_in_and_no_others(redis_url: str) -> None:
    """It kept every channel that the user had ever joined, and each revocation began a new version of all of them."""
    async with node_object(redis_url) as node:
        socketless = Socketless(node, redis_url)
        (ann,) = await socketless.open(["ann"])
        (desktop,) = await socketless.open(["ann"], machine="desktop")
        await socketless.create(ann, [f"c{number}" for number in range(6)])
        await socketless.join(ann, ["c0", "c1", "c2", "c3"])
        await socketless.join(desktop, ["c3"])
        await socketless.services.channels.leave(ann, "c0")
        await socketless.services.moderation.kick(ann, "c1", "ann")
        await socketless.services.moderation.delete(ann, "c2")
        with Redis.from_url(redis_url, decode_responses=True) as store:
            joined = f"{KEYS.directory}:joined:ann"
            c3 = ann.joined["c3"]
            await wait_until(lambda: store.smembers(joined) == {c3}, what="only the last one is left")
            await socketless.services.presence.close(ann)
            assert store.smembers(joined) == {c3}, "the other machine is in it"
            await socketless.services.presence.close(desktop)
            assert not store.keys(f"{KEYS.directory}:joined:*")
            assert not store.keys(f"{KEYS.directory}:in:*")


async def test_a_revocation_changes_the_channels_of_that_machine_alone(redis_url: str) -> None:
    """However many channels other machines of the user are in."""
    async with node_object(redis_url) as node:
        socketless = Socketless(node, redis_url)
        (ann,) = await socketless.open(["ann"])
        (stolen,) = await socketless.open(["ann"], machine="stolen")
        await socketless.create(ann, ["c0", "c1"])
        await socketless.join(ann, ["c0"])
        await socketless.join(stolen, ["c1"])
        with Redis.from_url(redis_url, decode_responses=True) as store:
            c0, c1 = ann.joined["c0"], stolen.joined["c1"]
            await socketless.services.accounts.remove_machine(ann, "stolen")
            versions = [store.hget(f"{KEYS.directory}:channel:{each}", "version") for each in (c0, c1)]
            assert versions == ["0", "1"]
            assert store.hget(KEYS.head(c1), "version") == "1", "announced before the acknowledgement"
        await wait_until(lambda: stolen.close_reason is not None, what="its session ends")
