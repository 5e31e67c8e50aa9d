"""The server behind the address changes, or loses its data: a node goes on in the same cluster only."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from nacl.signing import SigningKey
from redis import Redis
from redis.asyncio.connection import AbstractConnection

from conclave.protocol import close_texts
from relay.app.config import NodeConfig, RedisUrl
from relay.app.node import Node
from relay.model.errors import NodeFailure, StoreUnavailable
from relay.observability.metrics import Metrics
from relay.redis import connect, scripts
from relay.redis.client import RedisClient
from relay.redis.connector import Connector
from relay.redis.directory import Directory
from relay.redis.identity import ClusterCheck, StoreIdentity
from relay.redis.keys import Keys
from relay.redis.scripts import Script
from relay.services.server_admins import ServerAdmins
from tests.support.nodes import client_of, node_object
from tests.support.peer import Peer, Peers, Refused
from tests.support.proxy import Proxy
from tests.support.redis_server import RedisProcess
from tests.support.replica import Pair, replicated
from tests.support.v2_peer import V2Closed, V2Peer, V2Peers
from tests.support.waiting import wait_until

KEYS = Keys("conclave")
SHUTDOWN = f"unauthorized: {close_texts.SHUTDOWN}"
SUPERSEDED = f"unauthorized: {close_texts.SUPERSEDED}"
GOING_AWAY = 1012


class Lost:
    """A node that is expected to end, and the reason for which it does."""

    def __init__(self, redis_url: str) -> None:
        self.node = Node(NodeConfig("127.0.0.1", 0, RedisUrl(redis_url), ServerAdmins({})), connect.real(redis_url))
        self._running = asyncio.create_task(self.node.run())

    async def start(self) -> None:
        await wait_until(lambda: self._running.done() or self.node.is_ready, what="the node is ready")

    @property
    def url(self) -> str:
        return f"ws://{self.node.address}/"

    async def reason(self) -> str:
        """Wait for the end of the node, and return its reason."""
        async with asyncio.timeout(20):
            with pytest.raises(NodeFailure) as raised:
                await self._running
        return str(raised.value)

    async def end(self) -> None:
        self.node.force_stop()
        await asyncio.wait([self._running])


@asynccontextmanager
async def lost(redis_url: str) -> AsyncIterator[Lost]:
    """Run a node that is expected to end."""
    lost = Lost(redis_url)
    try:
        await lost.start()
        yield lost
    finally:
        await lost.end()


# --- Another cluster, or none ---


@pytest.mark.parametrize("what", ["flushed", "key"])
async def test_a_server_that_was_emptied_ends_its_nodes(
    redis_url: str, what: str, v2_peers: V2Peers, peers: Peers
) -> None:
    """No connection is lost with the data. Clients come back to wherever it is; none is told to stop for good."""
    async with lost(redis_url) as node:
        key = SigningKey.generate()
        ann = v2_peers.keep(await V2Peer.login(node.url, key, "main", register=("ann", "laptop")))
        bob = await peers.register(node.url, "bob")
        with Redis.from_url(redis_url) as store:
            store.flushall() if what == "flushed" else store.delete(KEYS.cluster)
        reason = await node.reason()
        assert f"no longer holds cluster `{bob.server_id}`" in reason
        assert f"SET {KEYS.cluster} {bob.server_id} NX" in reason
        await wait_until(lambda: ann.is_closed, what="the session is closed")
        assert ann.ws.close_code == GOING_AWAY
        assert await bob.wait_closed() == SHUTDOWN


async def test_an_emptied_server_gives_no_final_answers(redis_url: str, v2_peers: V2Peers) -> None:
    """Until the next heartbeat nobody may take a name that is taken, or hear that a key is unknown."""
    async with lost(redis_url) as node:
        key = SigningKey.generate()
        ann = v2_peers.keep(await V2Peer.login(node.url, key, "main", register=("ann", "laptop")))
        stranger, own = await V2Peer.dial(node.url), await V2Peer.dial(node.url)
        for dialled in (stranger, own):
            v2_peers.keep(dialled)
            await dialled.hello("other", node.url.rstrip("/"))
        with Redis.from_url(redis_url) as store:
            store.flushall()
        logins = await asyncio.gather(
            stranger.prove(SigningKey.generate(), node.url.rstrip("/"), register=("ann", "laptop")),
            own.prove(key, node.url.rstrip("/")),
            ann.ask("who"),
            return_exceptions=True,
        )
        await node.reason()
        with Redis.from_url(redis_url) as store:
            assert store.hgetall(KEYS.users) == {}
        for outcome in logins[:2]:
            assert isinstance(outcome, V2Closed)
            assert outcome.code not in {4001, 4002, 4003}, f"{outcome} ends a client for good"
        await wait_until(lambda: ann.is_closed, what="the session is closed")
        assert ann.ws.close_code == GOING_AWAY


async def test_an_empty_server_that_answers_at_once_ends_the_nodes(tmp_path: Path, v2_peers: V2Peers) -> None:
    """The address is the same, and there was no time to notice an outage."""
    server = RedisProcess(tmp_path, tcp=True, durable=False)
    await server.start()
    try:
        async with lost(server.url) as one, lost(server.url) as other:
            ann = v2_peers.keep(await V2Peer.register(one.url, "ann"))
            await server.restart()
            assert "no longer holds cluster" in await one.reason()
            assert "no longer holds cluster" in await other.reason()
            await wait_until(lambda: ann.is_closed, what="the session is closed")
            assert ann.ws.close_code == GOING_AWAY
            with Redis.from_url(server.url) as store:
                assert store.get(KEYS.cluster) is None
    finally:
        server.close()


async def test_another_cluster_at_the_address_ends_the_nodes(redis_url: str, tmp_path: Path) -> None:
    """Its users and channels are not those of this node's clients."""
    other = RedisProcess(tmp_path, tcp=True, durable=False)
    await other.start()
    try:
        async with node_object(other.url) as theirs, lost(redis_url) as node:
            with Redis.from_url(redis_url) as store:
                store.set(KEYS.cluster, theirs._cluster_id)
            assert f"Redis now holds cluster `{theirs._cluster_id}` instead of" in await node.reason()
    finally:
        other.close()


async def test_no_second_id_is_made_for_users_that_have_one(redis_url: str, peers: Peers) -> None:
    """Clients have pinned the first one, and would take this cluster for another."""
    async with node_object(redis_url) as node:
        ann = await peers.register(f"ws://{node.address}/", "ann")
        await peers.close()
    with Redis.from_url(redis_url) as store:
        store.delete(KEYS.cluster)
    async with lost(redis_url) as late:
        reason = await late.reason()
    assert "Redis has users, but no cluster id" in reason
    assert f"SET {KEYS.cluster} ID NX" in reason
    with Redis.from_url(redis_url) as store:
        assert store.get(KEYS.cluster) is None
        store.set(KEYS.cluster, ann.server_id)
    async with node_object(redis_url) as node:
        assert node._cluster_id == ann.server_id


# --- Another server of the same cluster ---


class Failover(Pair):
    """A primary and a replica behind one address, which leads to the primary at first."""

    def __init__(self, pair: Pair, address: Proxy) -> None:
        super().__init__(pair.primary, pair.replica, pair.link)
        self.address = address

    def promote(self) -> None:
        """Make the replica a primary, and have the address lead there."""
        with Redis.from_url(self.replica.url) as store:
            store.execute_command("REPLICAOF", "NO", "ONE")
        self.address.lead_to(*self.replica.address)

    def demote(self) -> None:
        """Make the old primary a replica; its connections stay."""
        with Redis.from_url(self.primary.url) as store:
            store.execute_command("REPLICAOF", *map(str, self.replica.address))


def run_of(server: RedisProcess) -> str:
    with Redis.from_url(server.url) as store:
        return str(store.info("server")["run_id"])


def is_at(run: str, node: Node) -> bool:
    """Tell if a node is ready, and sends its commands to this run of a server."""
    identity = client_of(node).identity
    return node.is_ready and identity is not None and identity.run_id == run


@pytest.fixture
async def servers(tmp_path: Path) -> AsyncIterator[Failover]:
    async with replicated(tmp_path) as pair, Proxy(*pair.primary.address) as address:
        yield Failover(pair, address)


async def test_an_old_primary_that_became_a_replica_is_left(servers: Failover, peers: Peers) -> None:
    """It answers, keeps every connection, and refuses every write. The new primary is behind the same address."""
    async with AsyncExitStack() as stack:
        url = f"redis://127.0.0.1:{servers.address.port}"
        nodes = [await stack.enter_async_context(node_object(url)) for _ in range(2)]
        ann, bob = [
            await peers.register(f"ws://{node.address}/", name)
            for node, name in zip(nodes, ("ann", "bob"), strict=True)
        ]
        await ann.create("ops")
        await ann.join("ops")
        await bob.join("ops")
        await servers.in_step()
        servers.promote()
        servers.demote()
        run = run_of(servers.replica)
        await wait_until(lambda: all(is_at(run, node) for node in nodes), what="the nodes are at the new primary")
        await ann.post("ops", "after")
        await wait_until(lambda: bob.bodies == ["after"], what="the message arrives")
        await wait_until(lambda: _who(ann, ann, bob), what="both are present")
        with Redis.from_url(servers.primary.url) as store:
            assert store.info("clients")["pubsub_clients"] == 0
            assert [c for c in store.client_list() if c["cmd"].startswith("xread")] == []
        await peers.close()


async def test_a_node_is_not_ready_at_a_replica(servers: Failover) -> None:
    """Nothing that it is asked for could be written."""
    async with node_object(f"redis://127.0.0.1:{servers.address.port}") as node:
        servers.demote()
        await wait_until(lambda: node.unready_reason == "Redis refuses commands: READONLY", what="the reason is told")
        servers.promote()
        await wait_until(lambda: node.is_ready, what="the node has found the new primary")


async def _who(observer: Peer, *present: Peer) -> bool:
    try:
        return await observer.who() == sorted(str(peer.path) for peer in present)
    except Refused:  # Redis is away
        return False


async def test_a_session_that_the_new_primary_does_not_know_is_said_again(servers: Failover, peers: Peers) -> None:
    """The last login had not reached the replica. The session is present, gets whispers, and can be superseded."""
    url = f"redis://127.0.0.1:{servers.address.port}"
    async with node_object(url) as one, node_object(url) as other:
        key = SigningKey.generate()
        first = peers.keep(await Peer.login(f"ws://{one.address}/", key, "first", register=("ann", "laptop")))
        bob = await peers.register(f"ws://{other.address}/", "bob")
        await first.create("ops")
        await servers.in_step()
        servers.link.stall()
        late = peers.keep(await Peer.login(f"ws://{one.address}/", key, "late"))
        await late.join("ops")
        servers.promote()
        servers.primary.kill()
        run = run_of(servers.replica)
        await wait_until(lambda: is_at(run, one) and is_at(run, other), what="the nodes are at the new primary")
        await wait_until(lambda: _who(bob, first, late, bob), what="the session is present")
        assert await bob.who("ops") == [str(late.path)]
        await bob.whisper(late.path, "hi")
        await wait_until(lambda: late.whispers, what="the whisper arrives")
        again = peers.keep(await Peer.login(f"ws://{other.address}/", key, "late"))
        assert await late.wait_closed() == SUPERSEDED
        assert not again.is_closed
        await peers.close()


async def test_a_connection_to_another_server_has_all_of_them_made_again(servers: Failover, peers: Peers) -> None:
    """Only the subscriber connection is lost, and the address leads elsewhere by now: two servers would be in use."""
    async with node_object(f"redis://127.0.0.1:{servers.address.port}") as node:
        client = client_of(node)
        ann = await peers.register(f"ws://{node.address}/", "ann")
        await servers.in_step()
        servers.promote()
        assert servers.primary.cut_subscribers() == 1
        with Redis.from_url(servers.replica.url) as store:
            run = store.info("server")["run_id"]
        await wait_until(
            lambda: node.is_ready and client.identity is not None and client.identity.run_id == run,
            what="the commands go to the new primary",
        )
        await wait_until(lambda: _who(ann, ann), what="the session is present there")
        await ann.create("ops")
        await ann.join("ops")
        await peers.close()


async def test_a_name_is_not_claimed_elsewhere(redis_url: str) -> None:
    """The check of the cluster and the claim of the name are one step."""
    cluster = ClusterCheck(KEYS.cluster)
    client = RedisClient(connect.real(redis_url), timeout=5.0, metrics=Metrics(scripts.NAMES), cluster=cluster)
    directory = Directory(client, KEYS)
    serving = asyncio.create_task(client.serve())
    try:
        cluster.expected = str(await directory.cluster_id())
        assert await directory.enroll("ann", "laptop", "key", policy="open", invite="") == "ok"
        with Redis.from_url(redis_url) as store:
            store.flushall()
            with pytest.raises(StoreUnavailable):
                await directory.enroll("ann", "laptop", "key", policy="open", invite="")
            assert not store.exists(KEYS.users)
    finally:
        serving.cancel()
        await asyncio.wait([serving])


async def test_a_cluster_that_is_founded_meanwhile_is_not_missed(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first node founds its cluster while it opens connections; what they saw before that says nothing."""
    cluster = ClusterCheck(KEYS.cluster)
    others: list[str | None] = []
    cluster.on_other(others.append)
    open_connection = Connector.open

    async def open_before_it_is_founded(
        self: Connector, load: Sequence[Script] = ()
    ) -> tuple[AbstractConnection, StoreIdentity]:
        opened = await open_connection(self, load)
        with Redis.from_url(redis_url) as redis:
            redis.set(KEYS.cluster, "c1")
        cluster.expected = "c1"
        return opened

    monkeypatch.setattr(Connector, "open", open_before_it_is_founded)
    client = RedisClient(connect.real(redis_url), timeout=2.0, metrics=Metrics(scripts.NAMES), cluster=cluster)
    serving = asyncio.create_task(client.serve())
    try:
        await client.call("DEL", KEYS.cluster)
        cluster.expected = ""
        await (await client.connection()).disconnect()
    finally:
        serving.cancel()
        await asyncio.wait([serving])
    assert not others
