"""`make cluster`: a new user's first cluster; nothing of it is left afterwards."""

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from nacl.signing import SigningKey

from tests.support.command_line import conclave
from tests.support.local_cluster import LocalCluster
from tests.support.peer import Peer, Peers
from tests.support.ports import accepts
from tests.support.waiting import wait_until

ROOT = Path(__file__).parents[2]


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[LocalCluster]:
    async with LocalCluster(tmp_path / "data") as running:
        yield running


@pytest.fixture
async def peers(cluster: LocalCluster) -> AsyncIterator[Peers]:
    assert cluster.processes
    async with Peers() as peers:
        yield peers


async def nothing_is_left(cluster: LocalCluster) -> None:
    assert cluster.processes == []
    assert [port for port in range(cluster.port, cluster.port + 4) if await accepts(port)] == []


async def sessions_by_node(cluster: LocalCluster, directory: Path) -> list[float | None]:
    """As `conclave top` shows them; None for a node that does not answer."""
    finished = await conclave(directory, "top", "--json", "--interval", "0.2", *cluster.addresses)
    rows = json.loads(finished.out)["rows"]
    return [row["figures"] and row["figures"]["sessions"] for row in rows]


async def test_three_nodes_are_one_relay_that_bears_the_death_of_one(
    cluster: LocalCluster, peers: Peers, tmp_path: Path
) -> None:
    """A new user's first cluster: one URL, several nodes, kill -9 of any, and Ctrl-C that ends everything."""
    await cluster.serving()
    key = SigningKey.generate()
    ann = peers.keep(await Peer.login(cluster.url, key, register=("ann", "laptop")))
    where = (await sessions_by_node(cluster, tmp_path)).index(1)
    bob = await peers.register(cluster.url, "bob")
    await ann.create("ops")
    await ann.join("ops")
    await bob.join("ops")
    await ann.post("ops", "hello")
    await wait_until(lambda: bob.bodies == ["hello"], what="the message has arrived")
    sessions = await sessions_by_node(cluster, tmp_path)
    assert (sorted(map(str, sessions)), sessions[where]) == (["0.0", "1.0", "1.0"], 1), "they are on two nodes"

    killed = cluster.pid(where + 1)
    os.kill(killed, signal.SIGKILL)
    await ann.wait_closed()
    again = peers.keep(await Peer.login(cluster.url, key))
    await again.join("ops")
    await again.post("ops", "still here")
    await wait_until(lambda: bob.bodies == ["hello", "still here"], what="the others go on")
    assert f"❌ node {where + 1} (process {killed}) was killed by SIGKILL" in cluster.err
    assert (await sessions_by_node(cluster, tmp_path))[where] is None

    cluster.signal(signal.SIGINT)
    assert await bob.wait_closed() == "unauthorized: the relay is shutting down; reconnect"
    assert await cluster.end() == 0
    await nothing_is_left(cluster)


@pytest.mark.long
async def test_history_is_there_after_a_restart(tmp_path: Path) -> None:
    """Stopped by the signals of a service manager or a closed window, and started again in the same directory.

    Another Redis in the environment is none of its own.
    """
    key = SigningKey.generate()
    other = {"CONCLAVE_REDIS_PASSWORD": "secret", "CONCLAVE_REDIS_READ_URL": "redis://127.0.0.1:1"}
    async with LocalCluster(tmp_path / "data", nodes=1, **other) as cluster:
        await cluster.serving()
        ann = await Peer.login(cluster.url, key, register=("ann", "laptop"))
        await ann.create("ops")
        await ann.join("ops")
        await ann.post("ops", "hello")
        await ann.close()
        cluster.signal(signal.SIGHUP)
        assert await cluster.end() == 0
        await nothing_is_left(cluster)
    async with LocalCluster(tmp_path / "data", nodes=1) as cluster:
        await cluster.serving()
        ann = await Peer.login(cluster.url, key)
        await ann.join("ops")
        assert await ann.history("ops") == ["hello"]
        await ann.close()
        cluster.signal(signal.SIGTERM)
        assert await cluster.end() == 0
        await nothing_is_left(cluster)


@pytest.mark.long
async def test_the_printed_commands_work(cluster: LocalCluster, tmp_path: Path) -> None:
    """A new user copies these lines into the next terminal."""
    await cluster.serving()
    printed = dict(re.split(r": +", line, maxsplit=1) for line in cluster.out if line.startswith(("join", "watch")))
    program, *join = shlex.split(printed["join"])
    assert shutil.which(program) is not None
    registered = await conclave(tmp_path, *join)
    assert registered.out.startswith("✓ registered ann/"), registered.err
    program, *watch = shlex.split(printed["watch"])
    watched = await conclave(tmp_path, *watch, "--once", "--interval", "0.2")
    assert [line.split()[0] for line in watched.out.splitlines()[2:]] == cluster.addresses


async def test_killed_it_leaves_nothing_behind(cluster: LocalCluster) -> None:
    """A kill -9 leaves no time to stop the others: they have to notice."""
    await cluster.serving()
    assert len(cluster.processes) == 6, "itself, three nodes, a store and its guard"
    cluster.kill()
    assert await cluster.end() == -signal.SIGKILL
    await wait_until(lambda: not cluster.processes, timeout=20, what="all its processes have ended")
    await nothing_is_left(cluster)


@pytest.mark.long
async def test_ctrl_c_while_it_starts_leaves_nothing_behind(cluster: LocalCluster) -> None:
    """Impatience is common."""
    await wait_until((cluster.data_dir / "node-1.log").exists, timeout=40, what="the first node starts")
    cluster.signal(signal.SIGINT)
    assert await cluster.end() == 0
    await nothing_is_left(cluster)
    assert cluster.out == [], "it never said that it serves"


async def test_without_any_node_it_ends(tmp_path: Path) -> None:
    """A balancer before nothing would look like a cluster."""
    async with LocalCluster(tmp_path / "data", nodes=1) as cluster:
        await cluster.serving()
        os.kill(cluster.pid(1), signal.SIGKILL)
        assert await cluster.end() == 1
        assert cluster.err[-1] == "❌ no node is left"
        await nothing_is_left(cluster)


async def test_used_ports_are_reported_before_any_start(tmp_path: Path) -> None:
    """All of them at once, with a way out."""
    cluster = LocalCluster(tmp_path / "data")
    first = cluster.port
    with socket.create_server(("127.0.0.1", first)), socket.create_server(("127.0.0.1", first + 2)):
        async with cluster:
            assert await cluster.end() == 1
    assert len(cluster.err) == 1
    assert cluster.err[0].startswith(
        f"❌ in use by another program: port {first}, {first + 2} of {first} to {first + 3}"
    )
    assert f"--bind 127.0.0.1:{first + 100}" in cluster.err[0]
    assert not cluster.data_dir.exists()


async def test_a_node_that_cannot_start_says_why(tmp_path: Path) -> None:
    """Nodes read their settings from the environment, and a wrong one ends them: the reason is in the last line."""
    async with LocalCluster(tmp_path / "data", nodes=1, CONCLAVE_REGISTRATION="sometimes") as cluster:
        assert await cluster.end() == 1
        assert re.fullmatch(r"❌ node 1 ended with status 2: .*'sometimes' is not one of.*", cluster.err[-1])
        await nothing_is_left(cluster)


@pytest.mark.parametrize("made_by", [{}, {"MAKELEVEL": "1", "MAKEFLAGS": "w"}], ids=["shell", "make"])
def test_make_cluster_is_that_command(made_by: dict[str, str]) -> None:
    """With its variables; from a shell, and within another make, which prints lines of its own."""
    make = shutil.which("make")
    assert make is not None
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    words = [make, "--no-print-directory", "--dry-run", "cluster", "NODES=5", "BIND=127.0.0.1:5000", "DATA_DIR=there"]
    printed = subprocess.run(
        words, cwd=ROOT, env={**clean, **made_by}, capture_output=True, text=True, timeout=60, check=True
    ).stdout
    assert printed.splitlines()[-1] == ".venv/bin/conclave cluster --nodes 5 --bind 127.0.0.1:5000 --data-dir there"
