"""Sends whose connections are cut at any byte, and retried with the same key: each is in the log once."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit

import pytest
from nacl.signing import SigningKey

from tests.support.trials import by_form
from tests.support.v2_peer import V2Peer, V2Peers, V2Refused

TRIALS = by_form(20, 300, 10_000)
"""The number of sends that are cut."""
AT_ONCE = 10


class Wire:
    """One connection through here; once armed, it breaks after so many more bytes in one direction."""

    def __init__(self) -> None:
        self.budget: dict[str, int] = {}
        self.port = 0
        self._ends: list[asyncio.StreamWriter] = []

    @asynccontextmanager
    async def to(self, url: str) -> AsyncIterator[str]:
        parts = urlsplit(url)

        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            there = await asyncio.open_connection(parts.hostname, parts.port)
            self._ends += [writer, there[1]]
            await asyncio.gather(self._carry("up", reader, there[1]), self._carry("down", there[0], writer))

        server = await asyncio.start_server(accept, "127.0.0.1", 0)
        try:
            yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        finally:
            self._cut()
            server.close()

    async def _carry(self, way: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(65_536):
                left = self.budget.get(way)
                if left is not None:
                    data, self.budget[way] = data[:left], left - len(data)
                writer.write(data)
                await writer.drain()
                if self.budget.get(way, 1) <= 0:
                    break
        self._cut()

    def _cut(self) -> None:
        for end in self._ends:
            if not end.is_closing():
                end.close()  # what was written before still goes out


async def trial(number: int, url: str, key: SigningKey, chance: random.Random) -> str:
    """Send once through a connection that breaks, then as often as it takes; returns the id."""
    session, text = f"s{number % AT_ONCE}", f"message {number}"
    wire = Wire()
    async with wire.to(url) as through:
        ann = await V2Peer.login(through, key, session)
        await ann.join("ops")
        wire.budget[chance.choice(["up", "down"])] = chance.randrange(1, 140)
        with suppress(OSError, V2Refused, TimeoutError):
            async with asyncio.timeout(5):
                await ann.post("ops", text, key=f"key {number}")
        await ann.cut()
    ann = await V2Peer.login(url, key, session)
    await ann.join("ops")
    sent = [await ann.post("ops", text, key=f"key {number}") for _ in range(2)]
    await ann.close()
    assert sent[0] == sent[1]
    return sent[0]


@pytest.mark.timeout(120 + TRIALS)
async def test_a_send_that_is_cut_anywhere_and_retried_is_one_message(url: str, v2_peers: V2Peers) -> None:
    """In the request, between it and the reply, or in the reply."""
    key = SigningKey.generate()
    bob = await v2_peers.register(url, "bob")
    await bob.create("ops")
    await bob.join("ops")
    await (await V2Peer.login(url, key, register=("ann", "laptop"))).close()
    seed = random.SystemRandom().randrange(10**6)
    print(f"seed {seed}")  # noqa: T201 - shown if it fails
    chance = random.Random(seed)  # noqa: S311 - luck, not secrets
    ids: list[str] = []
    for first in range(0, TRIALS, AT_ONCE):
        ids += await asyncio.gather(*(trial(first + i, url, key, chance) for i in range(AT_ONCE)))
        await bob.ask("ping")  # with many trials it takes longer than a session may be silent
    rows = await bob.history("ops")
    assert sorted(row["id"] for row in rows) == sorted(ids), "lost, or repeated"
    assert {row["id"]: row["body"]["text"] for row in rows} == {each: f"message {i}" for i, each in enumerate(ids)}
    assert bob.ids("ops") == [row["id"] for row in rows]
