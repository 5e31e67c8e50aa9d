"""One machine, one command, no Redis: what was acknowledged survives whatever happens to the process."""

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
from tests.support.traffic import Talker, everybody_heard, more_is_said, talking
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
    everybody = Peers()
    try:
        yield everybody
    finally:
        await everybody.close()


@pytest.mark.parametrize("node", [True], ids=["installed"], indirect=True)
async def test_killed_under_load_it_has_everything_acknowledged(node: NodeProcess, peers: Peers) -> None:
    """An Ack is a promise. Users, channels, members, invites and messages are all kept by it, and so is who we are.

    Clients pin the cluster's id: if it changed with a restart, every one of them would refuse to come back.
    """
    keys = [SigningKey.generate() for _ in range(4)]
    talkers = [
        Talker(peers.keep(await Peer.login(node.url, key, register=(f"user{i}", "laptop"))), "attic", f"user{i}")
        for i, key in enumerate(keys)
    ]
    host = talkers[0].peer
    server_id = host.server_id
    await host.create("attic", Visibility.PRIVATE)
    await host.join("attic")
    token = await host.invite("attic", uses=4)
    for talker in talkers[1:]:
        await talker.peer.join("attic", token)
    async with talking(talkers):
        await more_is_said(talkers, 30)
        await node.kill()
    await node.start()
    back = [peers.keep(await Peer.login(node.url, key)) for key in keys]
    assert {peer.server_id for peer in back} == {server_id}
    for peer in back:
        await peer.join("attic")  # membership was kept
    await everybody_heard(talkers, [], back[0], "attic")
    stranger = await peers.register(node.url, "stranger")
    await stranger.join("attic", token)  # one use was left
    another = await peers.register(node.url, "another")
    with pytest.raises(Refused, match="not found"):
        await another.join("attic", token)
    assert await back[0].who() == sorted(str(peer.path) for peer in (*back, stranger, another)), "no ghosts"
    listener = back[1]
    again = Talker(back[2], "attic", "again")
    async with talking([again]):
        await more_is_said([again], 5)
    await wait_until(lambda: listener.bodies == again.acknowledged, what="it works as before")


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
    """The first thing that goes wrong for a newcomer should not be a stack trace."""
    (tmp_path / "file").write_text("not a directory")
    node = NodeProcess("--data-dir", str(tmp_path / "file"))
    assert await node.run_in_vain() != 0
    said = "\n".join(node.log)
    assert str(tmp_path / "file") in said
    assert "Traceback" not in said


@pytest.mark.parametrize("end", [NodeProcess.stop, NodeProcess.press_ctrl_c], ids=["SIGTERM", "Ctrl-C"])
async def test_told_to_stop_it_ends_soon_and_cleanly(
    node: NodeProcess, peers: Peers, tmp_path: Path, end: Callable[[NodeProcess], Awaitable[int]]
) -> None:
    """With sessions connected and talking. Its private server must go too, or the next start would find it there."""
    key = SigningKey.generate()
    talker = Talker(peers.keep(await Peer.login(node.url, key, register=("ann", "laptop"))), "plaza", "ann")
    await talker.peer.create("plaza")
    await talker.peer.join("plaza")
    idle = await peers.register(node.url, "idle")
    async with talking([talker]):
        await more_is_said([talker])
        async with asyncio.timeout(30):
            assert await end(node) == 0
    assert await idle.wait_closed() == "unauthorized: the relay is shutting down; reconnect"
    server = int((tmp_path / "data" / "server.lock").read_text())
    with pytest.raises(ProcessLookupError):
        os.kill(server, 0)
    await node.start()
    back = peers.keep(await Peer.login(node.url, key))
    await back.join("plaza")
    await everybody_heard([talker], [], back, "plaza")


async def test_private_server_that_dies_comes_back(node: NodeProcess, peers: Peers, tmp_path: Path) -> None:
    """The out-of-memory killer prefers the process with the data. For the users it is a short outage, nothing more."""
    talker = Talker(await peers.register(node.url, "talker"), "plaza", "talker")
    listener = await peers.register(node.url, "listener")
    await talker.peer.create("plaza")
    await talker.peer.join("plaza")
    await listener.join("plaza")
    lock = tmp_path / "data" / "server.lock"
    async with talking([talker]):
        await more_is_said([talker])
        server = int(lock.read_text())
        os.kill(server, signal.SIGKILL)
        await wait_until(lambda: lock.read_text().strip() not in ("", str(server)), what="another server was started")
        await more_is_said([talker])
    assert not talker.peer.is_closed
    await everybody_heard([talker], [listener], listener, "plaza")
