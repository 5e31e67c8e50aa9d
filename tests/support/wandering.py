"""Clients of protocol v2 as the protocol's page wants them: they come back, resume, and retry what was not answered."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import aiohttp
from nacl.signing import SigningKey

from tests.support.peer2 import Closed2, Peer2, Refused2
from tests.support.waiting import pause

T = TypeVar("T")

_LOST = (OSError, aiohttp.ClientError, TimeoutError, Closed2, Refused2)
_REST_SECONDS = 0.05
_PATIENCE_SECONDS = 5.0


class Wanderer:
    """Somebody with one path who is on whichever node is there, and remembers the last message handled per channel."""

    def __init__(self, urls: Callable[[], Sequence[str]], user: str, chance: random.Random) -> None:
        self.path = f"{user}/laptop/main"
        self.heard: list[str] = []
        """Ids of messages, in the order in which they were handled."""
        self.gaps = 0
        self.unrecovered = 0
        self.logins = 0
        self._key = SigningKey(chance.randbytes(32))
        self._user = user
        self._urls = urls
        self._chance = chance
        self._peer: Peer2 | None = None
        self._taken = 0

    async def register(self) -> Peer2:
        """Come in for the first time."""
        url = self._chance.choice(self._urls())
        self._peer = await Peer2.login(url, self._key, register=(self._user, "laptop"))
        return self._peer

    async def listen(self, channel: str, since: str, *, until: Callable[[], bool]) -> None:
        """Hear a channel until told otherwise; whenever the connection ends, come back with `since`."""
        position = since
        while not until():
            try:
                peer = await self._connected()
                joined = await peer.join(channel, since=position)
                self.unrecovered += not joined["recovered"]
                while not (until() or peer.is_closed):
                    position = self._take(position)
                    await pause(0.01)
            except _LOST:
                await pause(_REST_SECONDS)
            finally:
                position = self._take(position)
                self._leave_if_closed()

    async def insist(self, request: Callable[[Peer2], Awaitable[T]], channel: str) -> T:
        """Ask, on whichever node, until there is an answer."""
        while True:
            try:
                fresh = self._peer is None or self._peer.is_closed
                peer = await self._connected()
                async with asyncio.timeout(_PATIENCE_SECONDS):
                    if fresh:
                        await peer.join(channel)
                    return await request(peer)
            except _LOST:
                await pause(_REST_SECONDS)
                if self._chance.random() < 0.5:  # or is the connection still good?
                    await self.cut()

    async def cut(self) -> None:
        """Drop the connection without a word; what has arrived is not handled any more."""
        if self._peer is not None:
            await self._peer.cut()

    async def leave(self) -> None:
        if self._peer is not None:
            await self._peer.close()

    async def _connected(self) -> Peer2:
        if self._peer is None or self._peer.is_closed:
            if self._peer is not None:
                await self._peer.cut()
            self._peer = None
            self._taken = 0
            async with asyncio.timeout(_PATIENCE_SECONDS):
                self._peer = await Peer2.login(self._chance.choice(self._urls()), self._key)
            self.logins += 1
        return self._peer

    def _take(self, position: str) -> str:
        """Handle what has come in; returns the position after that."""
        events = self._peer.events if self._peer is not None else []
        for event in events[self._taken :]:
            if event["ev"] == "message":
                position = event["id"]
                self.heard.append(position)
            self.gaps += event["ev"] == "gap"
        self._taken = len(events)
        return position

    def _leave_if_closed(self) -> None:
        if self._peer is not None and self._peer.is_closed:
            self._taken = len(self._peer.events)


def others(rows: Sequence[Any], path: str) -> list[str]:
    """Return the ids of what somebody else has said."""
    return [row["id"] for row in rows if row["from"] != path]
