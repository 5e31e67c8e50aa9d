"""Several processes behind one port: clients see one relay, also when a process dies."""

import asyncio
import os
import re
import signal
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from structlog.testing import capture_logs

from relay.app.config import NodeConfig, RedisUrl
from relay.model.errors import NodeFailure
from relay.services.server_admins import ServerAdmins
from relay.workers import Supervisor
from tests.support.forked_workers import WORKER_NAME
from tests.support.metrics import scrape
from tests.support.nodes import NodeProcess
from tests.support.peer import Peer, Peers
from tests.support.processes import children, exists
from tests.support.redis_server import RedisProcess
from tests.support.waiting import pause, wait_until

SHUTDOWN = "unauthorized: the relay is shutting down; reconnect"


class Relay(NodeProcess):
    """`serve --workers`: a parent and its workers, whose numbers are those of the label."""

    def workers(self) -> set[int]:
        """The processes of the workers."""
        return workers_of(self.pid)

    async def sessions(self) -> Counter[str]:
        """Return the number of sessions of each worker."""
        seen = await scrape(self.url)
        return Counter({labels["worker"]: int(value) for labels, value in seen.series("sessions")})

    async def is_ready(self) -> bool:
        return await self.status("/ready") == 200


def workers_of(parent: int) -> set[int]:
    """Return the workers that a process has started."""
    return {pid for pid in children(parent) if _is_worker(pid)}


def _is_worker(pid: int) -> bool:
    try:
        command = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
        return "relay.workers.child" in command or Path(f"/proc/{pid}/comm").read_text().strip() == WORKER_NAME
    except OSError:
        return False


@pytest.fixture
async def relay(redis_url: str) -> AsyncIterator[Relay]:
    """Two workers on a Redis."""
    relay = Relay("--redis-url", redis_url, "--workers", "2")
    try:
        await relay.start()
        yield relay
    finally:
        await relay.close()


@pytest.fixture
async def peers(relay: Relay) -> AsyncIterator[Peers]:
    assert relay.is_running
    async with Peers() as peers:
        yield peers


async def spread_sessions(relay: Relay, peers: Peers, size: int = 24) -> list[Peer]:
    """Sessions in one channel, on whichever workers they came to: on both, or chance has failed once in 2 ** 23."""
    sessions = [await peers.register(relay.url, f"user{n}") for n in range(size)]
    await sessions[0].create("ops")
    for peer in sessions:
        await peer.join("ops")
    return sessions


async def test_sessions_are_spread_and_receive_each_others_messages(relay: Relay, peers: Peers) -> None:
    """Two cores serve one relay. One scrape has the series of each worker."""
    sessions = await spread_sessions(relay, peers)
    assert len(relay.workers()) == 2
    spread = await relay.sessions()
    assert set(spread) == {"0", "1"}
    assert min(spread.values()) > 0
    assert spread.total() == len(sessions)
    assert len(await sessions[0].who("ops")) == len(sessions)
    for peer in sessions:
        await peer.post("ops", f"I am {peer.path.user}")
    for peer in sessions:
        await wait_until(lambda p=peer: len(p.bodies) == len(sessions) - 1, what="all messages have arrived")  # type: ignore[misc]
    seen = await scrape(relay.url)
    assert seen("posts_total") == len(sessions)
    assert seen("deliveries_total") == len(sessions) * (len(sessions) - 1)
    assert seen("fanout_size_sum") == seen("deliveries_total")
    assert seen("fanout_size_count") == seen("fanout_size_bucket", le="+Inf") == 2 * len(sessions)
    for number in ("0", "1"):
        assert seen("sessions", worker=number) == seen("subscriptions", worker=number) == spread[number]
        assert seen("posts_total", worker=number) == spread[number]
        assert seen("worker_up", worker=number) == 1
        assert seen("worker_restarts_total", worker=number) == 0
    assert seen.values("worker") == {"0", "1"}
    assert all("worker" in labels for labels, _ in seen.series("sessions"))
    assert len(re.findall("^# TYPE conclave_sessions ", seen.text, re.MULTILINE)) == 1


async def test_a_worker_that_is_killed_is_replaced(relay: Relay, peers: Peers) -> None:
    """Those on the other worker notice nothing; the dead one's sessions leave presence, and new ones are served."""
    sessions = await spread_sessions(relay, peers)
    before = relay.workers()
    victim = min(before)
    os.kill(victim, signal.SIGKILL)
    lost = await closed(sessions)
    assert 0 < len(lost) < len(sessions)
    await wait_until(lambda: victim not in relay.workers() and len(relay.workers()) == 2, what="there are two again")
    assert relay.workers() & before == before - {victim}, "the other one was left alone"
    await wait_until(relay.is_ready, timeout=60, what="both are ready")
    seen = await scrape(relay.url)
    assert seen("worker_restarts_total") == 1
    assert seen("worker_up") == 2
    stayed = [peer for peer in sessions if peer not in lost]
    await wait_until(lambda: _present(stayed), timeout=15, what="the dead worker's sessions are gone")
    newcomers = [await peers.register(relay.url, f"new{n}") for n in range(24)]
    for peer in newcomers:
        await peer.join("ops")
    await stayed[0].post("ops", "who is here?")
    for peer in (*stayed[1:], *newcomers):
        await wait_until(lambda p=peer: p.bodies[-1:] == ["who is here?"], what="it arrives on both")  # type: ignore[misc]
    assert min((await relay.sessions()).values()) > 0


async def closed(sessions: list[Peer]) -> list[Peer]:
    """Wait until some are disconnected and no more follow; return them."""
    count = -1

    def has_stopped() -> bool:
        nonlocal count
        count, before = sum(peer.is_closed for peer in sessions), count
        return count == before > 0

    await wait_until(has_stopped, what="a worker's sessions are cut")
    return [peer for peer in sessions if peer.is_closed]


async def _present(sessions: list[Peer]) -> bool:
    return await sessions[0].who("ops") == sorted(str(peer.path) for peer in sessions)


@pytest.mark.long
async def test_workers_die_again_and_again(relay: Relay, peers: Peers) -> None:
    """All of them, several times: the port stays, and in the end everything works."""
    for turn in range(1, 4):
        old = relay.workers()
        for pid in old:
            os.kill(pid, signal.SIGKILL)
        await wait_until(
            lambda old=old: len(relay.workers()) == 2 and not relay.workers() & old,  # type: ignore[misc]
            timeout=20,
            what="there are two new ones",
        )
        await wait_until(relay.is_ready, timeout=20, what="both are ready")
        assert (await scrape(relay.url))("worker_restarts_total") == 2 * turn
    await spread_sessions(relay, peers)


@pytest.mark.long
async def test_a_connection_that_meets_a_dead_worker_waits_for_the_next_one(relay: Relay, peers: Peers) -> None:
    """The parent keeps the sockets: a client that dials in that moment is served a little later, not refused."""
    for pid in relay.workers():
        os.kill(pid, signal.SIGKILL)
    host, _, port = relay.address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=20) as dialled:
        dialled.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        loop = asyncio.get_running_loop()
        assert b"200 OK" in await loop.run_in_executor(None, dialled.recv, 1000)
    await wait_until(relay.is_ready, timeout=60, what="both are ready")
    await peers.register(relay.url, "ann")


async def test_ready_means_all_of_them(relay: Relay, redis_url: str) -> None:
    """A worker that hangs would not answer every second client; the metrics show which one it is."""
    assert redis_url
    assert await relay.is_ready()
    stopped = min(relay.workers())
    os.kill(stopped, signal.SIGSTOP)
    try:
        seen, text = await _ask_until(relay, "does not answer")
        assert re.search(r"worker [01] does not answer", text)
        assert seen == 503
        await wait_until(lambda: _counts(relay, "worker_up", 1), timeout=30, what="one is not up")
    finally:
        os.kill(stopped, signal.SIGCONT)
    await wait_until(relay.is_ready, timeout=60, what="both are ready")
    assert (await scrape(relay.url))("worker_up") == 2


async def _ask_until(relay: Relay, words: str) -> tuple[int, str]:
    """Ask for readiness until the answer has this text; every second request reaches the worker that hangs."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            async with (
                aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=3)) as http,
                http.get(f"http://{relay.address}/ready") as response,
            ):
                text = await response.text()
                if words in text:
                    return response.status, text
        except TimeoutError:
            continue
    raise AssertionError(f"nobody said `{words}`")


async def _counts(relay: Relay, name: str, value: float) -> bool:
    try:
        async with asyncio.timeout(3):
            return (await scrape(relay.url))(name) == value
    except TimeoutError:
        return False


async def test_a_worker_that_hangs_is_replaced(redis_url: str) -> None:
    """It lives and serves no session: its clients, and half of the new ones, would wait for as long as it hangs."""
    store = RedisUrl(redis_url)
    parent = Supervisor(NodeConfig("127.0.0.1", 0, store, ServerAdmins({}), workers=2), verbose=False, silence=3)
    with capture_logs() as logged:
        running = asyncio.create_task(parent.run())
        try:
            await wait_until(lambda: _serves(parent), timeout=30, what="both are ready")
            before = workers_of(os.getpid())
            hung = min(before)
            os.kill(hung, signal.SIGSTOP)
            await wait_until(lambda: not exists(hung), timeout=30, what="the one that hangs is gone")
            await wait_until(lambda: _serves(parent), timeout=30, what="both are ready")
            after = workers_of(os.getpid())
        finally:
            parent.stop()
            await running
    assert len(after) == 2
    assert after & before == before - {hung}, "the other one was left alone"
    assert [event["event"] for event in logged if event["log_level"] == "error"] == ["worker.silent", "worker.died"]


async def _serves(parent: Supervisor) -> bool:
    return len(workers_of(os.getpid())) == 2 and await parent.why_unready() is None


async def test_a_worker_that_hangs_is_waited_for_when_all_shall_end(redis_url: str) -> None:
    """While sessions drain there is one deadline for all workers, and what it cost is the reason why the relay ends."""
    config = NodeConfig("127.0.0.1", 0, RedisUrl(redis_url), ServerAdmins({}), workers=2)
    parent = Supervisor(config, verbose=False, silence=2)
    with capture_logs() as logged:
        running = asyncio.create_task(parent.run())
        await wait_until(lambda: _serves(parent), timeout=30, what="both are ready")
        parent.stop()
        for pid in workers_of(os.getpid()):
            os.kill(pid, signal.SIGSTOP)
        await pause(3)
        assert workers_of(os.getpid())
        parent.stop()
        with pytest.raises(NodeFailure, match="killed workers"):
            await running
    assert "worker.silent" not in [event["event"] for event in logged]


async def test_without_redis_no_worker_is_ready_and_all_live(redis_process: RedisProcess) -> None:
    """As with one process: a restart would make it worse."""
    relay = Relay("--redis-url", redis_process.url, "--workers", "2")
    try:
        await relay.start()
        before = relay.workers()
        redis_process.kill()
        await wait_until(lambda: _is_unready(relay), what="the relay says that it is not ready")
        assert re.fullmatch("worker [01]: Redis is not reachable", await relay.text("/ready"))
        assert await relay.status("/health") == 200
        await redis_process.start()
        await wait_until(relay.is_ready, timeout=60, what="both are ready")
        assert relay.workers() == before
    finally:
        await relay.close()


async def _is_unready(relay: Relay) -> bool:
    return await relay.status("/ready") == 503


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_all_processes(relay: Relay, peers: Peers, number: signal.Signals) -> None:
    """Every session on every worker gets the reason, and no process stays behind."""
    sessions = await spread_sessions(relay, peers)
    workers = relay.workers()
    if number is signal.SIGINT:
        code = await relay.press_ctrl_c()
    else:
        code = await relay.stop()
    assert code == 0
    assert [await peer.wait_closed() for peer in sessions] == [SHUTDOWN] * len(sessions)
    assert not any(map(exists, workers))
    assert not any("Traceback" in line for line in relay.log)


async def test_a_second_signal_ends_everything_at_once(relay: Relay) -> None:
    """An operator who presses Ctrl-C again has waited long enough."""
    workers = relay.workers()
    os.kill(min(workers), signal.SIGSTOP)  # it will not end by being asked
    os.kill(relay.pid, signal.SIGTERM)
    await wait_until(lambda: len(relay.workers()) == 1, what="the one that can has ended")
    assert relay.is_running
    await pause(0.6)  # so soon it would be the same signal, once more
    assert await relay.stop() == 1
    assert not any(map(exists, workers))
    assert any("killed workers" in line for line in relay.log)


async def test_workers_end_with_their_parent(relay: Relay, peers: Peers) -> None:
    """In any case: workers that stayed would hold the port without a supervisor."""
    sessions = await spread_sessions(relay, peers)
    workers = relay.workers()
    os.kill(relay.pid, signal.SIGKILL)
    await wait_until(lambda: not any(map(exists, workers)), what="the workers have ended")
    assert [await peer.wait_closed() for peer in sessions] == [SHUTDOWN] * len(sessions)
    await relay.kill()
    await relay.start()
    assert len(relay.workers()) == 2, "the port was free"


@pytest.mark.long
async def test_settings_that_no_worker_can_start_with_are_an_error(redis_url: str) -> None:
    """One sentence and exit code 1, as with one process; not a loop of crashes."""
    relay = Relay("--redis-url", redis_url, "--workers", "2", "--key-prefix", "a b")
    assert await relay.run_in_vain() == 1
    assert [line for line in relay.log if "invalid key prefix" in line]
    assert not [line for line in relay.log if "worker.died" in line or "Traceback" in line]


@pytest.mark.long
@pytest.mark.parametrize("workers", ["1", "2"])
async def test_a_port_that_is_in_use_is_an_error(relay: Relay, redis_url: str, workers: str) -> None:
    """Sockets that may share a port must not share it with another relay: half of the clients would meet it."""
    second = Relay("--redis-url", redis_url, "--workers", workers)
    second.address = relay.address
    assert await second.run_in_vain() == 1
    assert [line for line in second.log if f"failed to bind `127.0.0.1:{relay.address.rpartition(':')[2]}`" in line]
    assert len(relay.workers()) == 2
    assert await relay.is_ready()


async def test_the_parent_owns_the_private_store(tmp_path: Path) -> None:
    """One directory, one server, several workers; metrics on a port of their own, which the parent serves."""
    arguments = ("--data-dir", str(tmp_path / "data"), "--workers", "2", "--metrics-bind", "127.0.0.1:0")
    relay = Relay(*arguments)
    peers = Peers()
    try:
        await relay.start()
        sessions = await spread_sessions(relay, peers)
        aside = next(found[1] for line in relay.log if (found := re.search(r"metrics listening addr='([^']+)'", line)))
        seen = await scrape(f"http://{aside}")
        assert seen("sessions") == len(sessions)
        assert seen("nodes", worker="0") > 0
        assert await relay.status("/metrics") == 404
        server = int((tmp_path / "data" / "server.lock").read_text())
        async with aiohttp.ClientSession() as http, http.get(f"http://{aside}/ready") as response:
            assert response.status == 200
        os.kill(server, signal.SIGKILL)
        await wait_until(lambda: _is_unready(relay), what="the store is away")
        await wait_until(relay.is_ready, what="the store is back")
        await sessions[0].post("ops", "still here")
        await wait_until(lambda: sessions[1].bodies[-1:] == ["still here"], what="it has arrived")
        assert await relay.stop() == 0
        assert not exists(int((tmp_path / "data" / "server.lock").read_text()))
    finally:
        await peers.close()
        await relay.close()
