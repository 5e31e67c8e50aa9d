"""Sessions that the relay closes for a fault of their own, and that resume: they receive the channel's log."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from nacl.signing import SigningKey

from relay.app.node import Node
from relay.sessions.session import Session
from tests.support.nodes import node_object, running_node
from tests.support.v2_peer import V2Peer, V2Peers
from tests.support.waiting import pause, wait_until

BOB = SigningKey(b"b" * 32)
MESSAGE_BYTES = 64 * 1024


class Case:
    """Ann posts in `ops` on one node; bob receives on the other, and will be closed there."""

    def __init__(self, node: Node, ann: V2Peer, bob: V2Peer, other: str, peers: V2Peers) -> None:
        self.ann = ann
        self.bob = bob
        self.posted: list[str] = []
        self._node = node
        self._other = other
        self._peers = peers

    @property
    def session(self) -> Session:
        return next(each for each in self._node.parts.sessions if each.path.user == "bob")

    async def post(self, size: int = 0) -> None:
        self.posted.append(await self.ann.post("ops", "said ".ljust(size, "x")))

    async def resume(self, code: int) -> None:
        """Wait for the close, resume on another node after the last handled message, and check what was received."""
        assert (await self.bob.wait_closed())[0] == code
        assert self.bob.of("closing")[0]["code"] == code
        first = self.bob.ids("ops")
        await self.post()
        again = await self._peers.login(self._other, BOB)
        assert (await again.join("ops", since=first[-1]))["recovered"] is True
        await self.post()
        await wait_until(lambda: again.ids("ops")[-1:] == self.posted[-1:], what="bob has got the last message")
        assert len(first) < len(self.posted) - 1, "nothing was missed in between"
        assert first + again.ids("ops") == self.posted
        assert again.of("gap") == []


@asynccontextmanager
async def a_case(redis_url: str, *, idle_seconds: float = 60) -> AsyncIterator[Case]:
    peers, limit = V2Peers(), MESSAGE_BYTES
    async with (
        running_node(redis_url, max_message_bytes=limit) as other,
        node_object(redis_url, max_message_bytes=limit, idle_seconds=idle_seconds) as node,
    ):
        try:
            ann = await peers.register(other, "ann")
            await ann.create("ops")
            bob = await peers.login(f"ws://{node.address}/", BOB, register=("bob", "desk"))
            for peer in (ann, bob):
                await peer.join("ops")
            yield Case(node, ann, bob, other, peers)
        finally:
            await peers.close()


async def test_an_idle_session_resumes_what_it_missed(redis_url: str) -> None:
    """It is closed while messages arrive all the time: those before the close are the beginning of the log."""
    async with a_case(redis_url, idle_seconds=0.5) as case:
        while not case.bob.is_closed:
            await case.post()
            await pause(0.01)
        await case.resume(4004)


async def test_a_slow_reader_resumes_what_it_missed(redis_url: str) -> None:
    """Pending frames are dropped as a whole: the session has received exactly the bytes that the kernel had taken."""
    async with a_case(redis_url) as case:
        await case.post()
        await wait_until(lambda: case.bob.ids("ops") == case.posted, what="bob gets all")
        session = case.session
        case.bob.pause()
        while session.close_reason is None:
            await case.post(MESSAGE_BYTES)
        case.bob.resume()
        await case.resume(4005)


async def test_a_session_that_does_not_read_its_replay_resumes_the_rest(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A replay waits for its reader, but not for ever; a second one continues where the first one was cut off."""
    monkeypatch.setattr("relay.transport.stalls.CHECK_SECONDS", 0.03)
    async with a_case(redis_url) as case:
        for _ in range(100):
            await case.post(MESSAGE_BYTES)
        await wait_until(lambda: case.bob.ids("ops") == case.posted, what="bob gets all")
        case.bob.events.clear()
        session = case.session
        case.bob.pause()
        joining = asyncio.create_task(case.bob.join("ops", since="0-0"))
        await wait_until(lambda: session.close_reason, what="the relay gives up")
        case.bob.resume()
        await joining
        await case.resume(4005)
