"""Sessions that post all the time, and a check of what others received."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Self

from nacl.signing import SigningKey

from tests.support.nodes import NodeProcess
from tests.support.peer import Peer, Peers, Refused
from tests.support.waiting import pause, wait_until

REST_SECONDS = 0.02
"""The pause of a poster after each answer: an outage is tested, not the messages or refusals per second."""


class Poster:
    """Posts `name 0`, `name 1`, ... one after the other, and keeps the outcome of each."""

    def __init__(self, peer: Peer, channel: str, name: str) -> None:
        self.peer = peer
        self.acknowledged: list[str] = []
        self.refusals: list[str] = []
        """The texts of the refusals."""
        self.doubtful: list[str] = []
        """The texts that were sent and not acknowledged: they may have been kept, or not."""
        self.slowest = 0.0
        """The longest wait for an answer of either kind, in seconds."""
        self._channel = channel
        self._name = name
        self._count = 0

    async def post_next(self) -> bool:
        """Post the next message; False if it was refused. Raises: ConnectionError."""
        loop = asyncio.get_running_loop()
        body = f"{self._name} {self._count}"
        self._count += 1
        asked = loop.time()
        try:
            await self.peer.post(self._channel, body)
        except Refused as refused:
            self.refusals.append(str(refused))
            self.doubtful.append(body)
        except BaseException:
            self.doubtful.append(body)
            raise
        else:
            self.acknowledged.append(body)
            return True
        finally:
            self.slowest = max(self.slowest, loop.time() - asked)
        return False


@asynccontextmanager
async def posting(posters: Sequence[Poster]) -> AsyncIterator[None]:
    """Let all of them post inside the `async with`, each after its last answer; returns when all have stopped.

    A poster whose connection ends stops.
    """
    stop = asyncio.Event()

    async def post_all(poster: Poster) -> None:
        while not stop.is_set():
            try:
                await poster.post_next()
                await pause(REST_SECONDS)
            except ConnectionError:
                return

    async with asyncio.TaskGroup() as tasks:
        for poster in posters:
            tasks.create_task(post_all(poster))
        try:
            yield
        finally:
            stop.set()


async def more_is_acknowledged(posters: Sequence[Poster], count: int = 20) -> None:
    """Wait until each poster got `count` further acknowledgements."""
    before = [len(poster.acknowledged) for poster in posters]
    await wait_until(
        lambda: all(len(poster.acknowledged) >= b + count for poster, b in zip(posters, before, strict=True)),
        timeout=20,
        what=f"each poster gets {count} more acknowledgements",
    )


async def assert_all_delivered(posters: Sequence[Poster], readers: Sequence[Peer], history: Peer, channel: str) -> None:
    """Assert that sessions that were in the channel all the time got every acknowledged message once, in its order.

    A message without an acknowledgement may have been kept or not, but appears once at most, and everywhere or nowhere.
    """
    order = await history.history(channel)
    kept = set(order)
    assert len(order) == len(kept), "history has a message twice"
    confirmed = {body for poster in posters for body in poster.acknowledged}
    doubtful = {body for poster in posters for body in poster.doubtful}
    assert confirmed <= kept, f"acknowledged and not kept: {sorted(confirmed - kept)[:10]}"
    assert kept <= confirmed | doubtful, f"kept and never posted: {sorted(kept - confirmed - doubtful)[:10]}"
    for poster in posters:
        own = set(poster.acknowledged)
        assert [body for body in order if body in own] == poster.acknowledged, (
            "the order of a poster's messages was changed"
        )
    for reader in readers:
        await wait_until(
            lambda reader=reader: len(reader.messages) >= len(order),  # type: ignore[misc]
            what=f"{reader.path} has got all {len(order)} messages",
        )
        assert reader.bodies == order, f"{reader.path} got something else than history has"


class Traffic:
    """A session that posts and one that reads, on each of some nodes, all of them in the channel `ops`."""

    def __init__(self) -> None:
        self.posters: list[Poster] = []
        self.readers: list[Peer] = []
        self.keys: list[SigningKey] = []
        """The readers' keys."""

    @classmethod
    async def on(cls, nodes: Sequence[NodeProcess], peers: Peers) -> Self:
        """Log all of them in; nothing is posted yet."""
        traffic = cls()
        for i, node in enumerate(nodes):
            traffic.keys.append(SigningKey.generate())
            reader = await Peer.login(node.url, traffic.keys[i], "main", register=(f"reader{i}", "laptop"))
            traffic.readers.append(peers.keep(reader))
            traffic.posters.append(Poster(await peers.register(node.url, f"poster{i}"), "ops", f"poster{i}"))
        await traffic.readers[0].create("ops")
        for peer in traffic.sessions:
            await peer.join("ops")
        return traffic

    @property
    def sessions(self) -> list[Peer]:
        return [*self.readers, *(poster.peer for poster in self.posters)]

    @property
    def paths(self) -> list[str]:
        """All paths, sorted."""
        return sorted(str(peer.path) for peer in self.sessions)

    def paths_on(self, number: int) -> set[str]:
        """Return the paths of the two sessions that began on this node."""
        return {str(self.readers[number].path), str(self.posters[number].peer.path)}

    async def assert_undisturbed(self) -> None:
        """Assert that every session is connected and present, and that every reader has got every message."""
        assert not [str(peer.path) for peer in self.sessions if peer.is_closed], "a session was disconnected"
        for reader in self.readers:
            assert await reader.who() == await reader.who("ops") == self.paths
        await assert_all_delivered(self.posters, self.readers, self.readers[0], "ops")
