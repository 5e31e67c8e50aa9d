"""One machine, one command, no Redis: acknowledged data survives any end of the process."""

import asyncio
import os
import re
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from nacl.signing import SigningKey

from conclave.model import Visibility
from tests.support.nodes import NodeProcess
from tests.support.peer import Peer, Peers, Refused
from tests.support.traffic import Poster, assert_all_delivered, more_is_acknowledged, posting
from tests.support.waiting import wait_until


@pytest.fixture
async def node(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[NodeProcess]:
    """A relay on a directory; with the parameter `True` the installed command."""
    node = NodeProcess("--data-dir", str(tmp_path / "data"), installed=getattr(request, "param", False))
    try:
        await node.start()
        yield node
    finally:
        await node.close()


@pytest.fixture
async def peers(node: NodeProcess) -> AsyncIterator[Peers]:
    assert node.is_running
    async with Peers() as peers:
        yield peers


@pytest.mark.parametrize("node", [True], ids=["installed"], indirect=True)
async def test_killed_under_load_it_has_everything_acknowledged(node: NodeProcess, peers: Peers) -> None:
    """An Ack is a promise. Users, channels, members, invites and messages survive, and so does the server's identity.

    Clients pin the cluster's id: if it changed with a restart, every one of them would refuse to come back.
    """
    keys = [SigningKey.generate() for _ in range(4)]
    posters = [
        Poster(peers.keep(await Peer.login(node.url, key, register=(f"user{i}", "laptop"))), "ops", f"user{i}")
        for i, key in enumerate(keys)
    ]
    host = posters[0].peer
    server_id = host.server_id
    await host.create("ops", Visibility.PRIVATE)
    await host.join("ops")
    token = await host.invite("ops", uses=4)
    for poster in posters[1:]:
        await poster.peer.join("ops", token)
    async with posting(posters):
        await more_is_acknowledged(posters, 30)
        await node.kill()
    await node.start()
    back = [peers.keep(await Peer.login(node.url, key)) for key in keys]
    assert {peer.server_id for peer in back} == {server_id}
    for peer in back:
        await peer.join("ops")  # membership was kept
    await assert_all_delivered(posters, [], back[0], "ops")
    stranger = await peers.register(node.url, "stranger")
    await stranger.join("ops", token)  # one use was left
    another = await peers.register(node.url, "another")
    with pytest.raises(Refused, match="not found"):
        await another.join("ops", token)
    assert await back[0].who() == sorted(str(peer.path) for peer in (*back, stranger, another)), "no ghosts"
    reader = back[1]
    again = Poster(back[2], "ops", "again")
    async with posting([again]):
        await more_is_acknowledged([again], 5)
    await wait_until(lambda: reader.bodies == again.acknowledged, what="it works as before")


async def test_a_directory_serves_one_relay(node: NodeProcess, tmp_path: Path) -> None:
    """Two servers on the same files would destroy them; the second start fails with the reason, the first goes on."""
    second = NodeProcess("--data-dir", str(tmp_path / "data"))
    code = await second.run_in_vain()
    assert code not in (0, 2)
    said = "\n".join(second.log)
    assert "Traceback" not in said
    assert re.search(r"is in use by another relay \(process \d+\)", said), said
    assert await node.status("/ready") == 200


async def test_unusable_directory_is_a_sentence(tmp_path: Path) -> None:
    """The first error that a new user meets should not be a stack trace."""
    (tmp_path / "file").write_text("not a directory")
    node = NodeProcess("--data-dir", str(tmp_path / "file"))
    assert await node.run_in_vain() != 0
    said = "\n".join(node.log)
    assert str(tmp_path / "file") in said
    assert "Traceback" not in said


@pytest.mark.parametrize("end", [NodeProcess.stop, NodeProcess.press_ctrl_c], ids=["SIGTERM", "Ctrl-C"])
async def test_a_signal_ends_it_soon_and_cleanly(
    node: NodeProcess, peers: Peers, tmp_path: Path, end: Callable[[NodeProcess], Awaitable[int]]
) -> None:
    """With sessions connected and posting. Its private server must go too, or the next start would find it there."""
    key = SigningKey.generate()
    poster = Poster(peers.keep(await Peer.login(node.url, key, register=("ann", "laptop"))), "ops", "ann")
    await poster.peer.create("ops")
    await poster.peer.join("ops")
    idle = await peers.register(node.url, "idle")
    async with posting([poster]):
        await more_is_acknowledged([poster])
        async with asyncio.timeout(30):
            assert await end(node) == 0
    assert await idle.wait_closed() == "unauthorized: the relay is shutting down; reconnect"
    server = int((tmp_path / "data" / "server.lock").read_text())
    with pytest.raises(ProcessLookupError):
        os.kill(server, 0)
    await node.start()
    back = peers.keep(await Peer.login(node.url, key))
    await back.join("ops")
    await assert_all_delivered([poster], [], back, "ops")


async def test_private_server_that_dies_is_restarted(node: NodeProcess, peers: Peers, tmp_path: Path) -> None:
    """The out-of-memory killer prefers the process with the data. For the users it is a short outage, nothing more."""
    poster = Poster(await peers.register(node.url, "poster"), "ops", "poster")
    reader = await peers.register(node.url, "reader")
    await poster.peer.create("ops")
    await poster.peer.join("ops")
    await reader.join("ops")
    lock = tmp_path / "data" / "server.lock"
    async with posting([poster]):
        await more_is_acknowledged([poster])
        server = int(lock.read_text())
        os.kill(server, signal.SIGKILL)
        await wait_until(lambda: lock.read_text().strip() not in ("", str(server)), what="another server was started")
        await more_is_acknowledged([poster])
    assert not poster.peer.is_closed
    await assert_all_delivered([poster], [reader], reader, "ops")
