"""The drain of a node while others go on: it takes no new sessions, and closes its own one after the other."""

import asyncio
import re
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import aiohttp
import pytest

from tests.support.metrics import scrape
from tests.support.nodes import NodeProcess
from tests.support.peer import Peers
from tests.support.processes import children
from tests.support.reconnecting_clients import ReconnectingClient, greatest_share
from tests.support.trials import by_form
from tests.support.v2_peer import V2Peers
from tests.support.waiting import pause, wait_until

SHUTDOWN = "unauthorized: the relay is shutting down; reconnect"
FOREVER = "3600"
CLIENTS = by_form(60, 200, 200)

Start = Callable[..., Awaitable[NodeProcess]]


@pytest.fixture
async def start(redis_url: str) -> AsyncIterator[Start]:
    """Start nodes, of the test's Redis unless flags name another store."""
    nodes: list[NodeProcess] = []

    async def begin(*flags: str, drain: tuple[str, str] = ("0", "0"), store: tuple[str, ...] = ()) -> NodeProcess:
        delay, seconds = drain
        environment = {"CONCLAVE_DRAIN_DELAY": delay, "CONCLAVE_DRAIN_SECONDS": seconds}
        node = NodeProcess(*(store or ("--redis-url", redis_url)), *flags, environment=environment)
        nodes.append(node)
        await node.start()
        return node

    yield begin
    await asyncio.gather(*(node.close() for node in nodes))


@pytest.fixture
async def peers(start: Start) -> AsyncIterator[Peers]:
    """Clients, closed before the nodes are."""
    del start  # asked for only to be there longer
    async with Peers() as peers:
        yield peers


@pytest.fixture
async def v2_peers(start: Start) -> AsyncIterator[V2Peers]:
    """The same for protocol v2."""
    del start  # asked for only to be there longer
    async with V2Peers() as peers:
        yield peers


@asynccontextmanager
async def stopping(node: NodeProcess, number: signal.Signals = signal.SIGTERM) -> AsyncIterator[asyncio.Task[int]]:
    """Have a node begin to stop; the task has its exit code."""
    ending = asyncio.create_task(node.press_ctrl_c() if number is signal.SIGINT else node.stop())
    await wait_until(lambda: any("draining connections" in line for line in node.log), what="the drain has begun")
    try:
        yield ending
    finally:
        ending.cancel()


async def test_a_draining_node_is_not_ready_and_serves(start: Start, peers: Peers) -> None:
    """Until balancers have noticed they send clients, which must be served; and alerts must know."""
    node = await start(drain=(FOREVER, FOREVER))
    ann = await peers.register(node.url, "ann")
    await ann.create("ops")
    await ann.join("ops")
    assert (await scrape(node.url))("draining") == 0
    async with stopping(node):
        assert (await node.status("/ready"), await node.text("/ready")) == (503, "shutting down")
        assert await node.status("/health") == 200
        seen = await scrape(node.url)
        assert (seen("ready"), seen("draining"), seen("sessions")) == (0, 1, 1)
        bob = await peers.register(node.url, "bob")
        await bob.join("ops")
        await bob.post("ops", "just in time")
        await wait_until(lambda: ann.bodies == ["just in time"], what="ann has got it")


async def test_a_second_signal_ends_a_drain_at_once(start: Start, peers: Peers) -> None:
    """An operator in a hurry; the sessions are told all the same."""
    node = await start(drain=(FOREVER, FOREVER))
    other = await start()
    people = [await peers.register(node.url, f"user{n}") for n in range(5)]
    observer = await peers.register(other.url, "observer")
    async with stopping(node) as ending:
        await pause(0.6)  # sooner, it would count as the same signal
        assert node.is_running
        assert await node.stop() == 0
        assert await ending == 0
    assert [await peer.wait_closed() for peer in people] == [SHUTDOWN] * len(people)
    assert await observer.who() == [str(observer.path)], "no session stays in presence"


async def test_a_node_that_closes_its_sessions_takes_no_more(start: Start, peers: Peers, v2_peers: V2Peers) -> None:
    """The port is closed, connections before their login are refused, and each close is its protocol's."""
    node = await start(drain=("1", FOREVER))
    ann = await peers.register(node.url, "ann")
    bob = await v2_peers.register(node.url, "bob")
    async with aiohttp.ClientSession() as kept_alive:
        async with kept_alive.get(f"http://{node.address}/health") as response:
            assert response.status == 200
        async with stopping(node) as ending:
            assert await ann.wait_closed() == SHUTDOWN, "the first session is closed at once"
            with pytest.raises(ConnectionError):
                await asyncio.open_connection(*node.address.split(":"))
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await kept_alive.ws_connect(f"http://{node.address}/")
            assert refused.value.status == 503
            assert await bob.ask("ping") == {}, "bob's session is not due yet"
            assert await node.stop() == 0
            assert await ending == 0
    code, event = await bob.wait_closed()
    assert (code, event["ev"], event["code"]) == (1012, "closing", 1012)


async def test_sessions_of_a_draining_node_move_to_others_one_by_one(start: Start) -> None:
    """A drain prevents hundreds of logins in one moment on the nodes that take over."""
    window = 6
    leaving, *staying = [await start(drain=("0", str(window))) for _ in range(3)]
    urls = [node.url for node in (leaving, *staying)]
    orders = [urls, [urls[0], urls[2], urls[1]]]
    clients = [ReconnectingClient(orders[n % 2], f"user{n}") for n in range(CLIENTS)]
    for client in clients:
        await client.register()
    assert (await scrape(leaving.url))("sessions") == CLIENTS
    async with asyncio.TaskGroup() as staying_connected:
        tasks = [staying_connected.create_task(client.stay_connected()) for client in clients]
        assert await leaving.stop() == 0
        await wait_until(lambda: all(client.reconnected_at for client in clients), timeout=20, what="all are back")
        present = [(await scrape(node.url))("sessions") for node in staying]
        closes = [(await scrape(node.url))("session_closes_total") for node in staying]
        for task in tasks:
            task.cancel()
    assert present == [CLIENTS / 2, CLIENTS / 2]
    assert closes == [0, 0], "each moved once"
    lost = [at for client in clients for at in client.lost_at]
    back = [at for client in clients for at in client.reconnected_at]
    assert len(lost) == len(back) == CLIENTS
    for moments in (lost, back):
        assert greatest_share(moments, window / 4) < 0.5, "a quarter of the time is for a quarter of the sessions"
    for client in clients:
        await client.close()


async def test_workers_are_unready_together(start: Start, peers: Peers) -> None:
    """A signal reaches the parent only. A second one reaches them as well: all are told, and nobody is killed."""
    relay = await start("--workers", "2", drain=(FOREVER, FOREVER))
    people = [await peers.register(relay.url, f"user{n}") for n in range(24)]
    workers = children(relay.pid)
    async with stopping(relay) as ending:
        await wait_until(lambda: _all_drain(relay), what="both drain")
        assert await relay.status("/ready") == 503
        assert children(relay.pid) == workers
        await pause(0.6)
        assert await relay.stop() == 0
        assert await ending == 0
    assert [await peer.wait_closed() for peer in people] == [SHUTDOWN] * len(people)


async def _all_drain(relay: NodeProcess) -> bool:
    seen = await scrape(relay.url)
    return [seen("draining", worker=number) for number in ("0", "1")] == [1, 1]


async def test_workers_drain_their_own_sessions(start: Start, peers: Peers) -> None:
    """The first session of each worker goes at once, and the next one has a long time."""
    relay = await start("--workers", "2", drain=("0", FOREVER))
    people = [await peers.register(relay.url, f"user{n}") for n in range(24)]
    async with stopping(relay):
        await wait_until(lambda: sum(peer.is_closed for peer in people) == 2, what="two are closed")
        await pause(0.6)
        assert sum(peer.is_closed for peer in people) == 2, "and no more"
        assert await relay.stop() == 0


async def test_the_parent_stays_until_the_last_worker_has_drained(start: Start, peers: Peers) -> None:
    """A supervisor of the parent takes its end for the end of all workers."""
    relay = await start("--workers", "2", drain=("0", "2"))
    people = [await peers.register(relay.url, f"user{n}") for n in range(24)]
    assert await relay.stop() == 0
    assert [await peer.wait_closed() for peer in people] == [SHUTDOWN] * len(people)


@pytest.mark.parametrize("store", ["--ephemeral", "--data-dir"])
async def test_a_relay_that_stands_alone_ends_quickly(start: Start, peers: Peers, tmp_path: Path, store: str) -> None:
    """Its sessions have no other node, and the user who pressed Ctrl-C waits at the terminal."""
    flags = (store,) if store == "--ephemeral" else (store, str(tmp_path / "data"))
    relay = await start(drain=("", ""), store=flags)  # that is, nothing was said about it
    ann = await peers.register(relay.url, "ann")
    async with asyncio.timeout(15):  # the defaults of a cluster take ten seconds more
        assert await relay.press_ctrl_c() == 0
    assert await ann.wait_closed() == SHUTDOWN


async def test_a_node_without_sessions_ends_at_once(start: Start) -> None:
    """The drain time is for sessions only."""
    node = await start(drain=("0", FOREVER))
    assert await node.stop() == 0


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_a_client_that_does_not_read_the_metrics_does_not_delay_the_end(start: Start, workers: str) -> None:
    """Any host in the cluster's network can connect; and a node that ends must not join the cluster again."""
    node = await start("--metrics-bind", "127.0.0.1:0", "--workers", workers)
    (address,) = {found[1] for line in node.log if (found := re.search(r"metrics listening.*?addr='([^']+)'", line))}
    with socket.socket() as silent:
        silent.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        host, port = address.rsplit(":", 1)
        silent.connect((host, int(port)))
        silent.setblocking(False)
        with suppress(BlockingIOError):
            for _ in range(2000):
                silent.send(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        assert await node.stop() == 0
    assert not [line for line in node.log if "node.evicted" in line]
    assert sum("node.joined" in line for line in node.log) == int(workers)
