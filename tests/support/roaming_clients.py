"""Clients of protocol v2 as the protocol's page wants them: they come back, resume, and retry what was not answered."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import TypeVar

import aiohttp
from nacl.signing import SigningKey

from relay.model.message import START
from tests.support.delivery_check import Asked, Gap, Stay
from tests.support.trimmed_log import Archive
from tests.support.v2_peer import Json, V2Closed, V2Peer, V2Refused
from tests.support.waiting import pause

T = TypeVar("T")

_LOST = (OSError, aiohttp.ClientError, TimeoutError, V2Closed, V2Refused)
_REST_SECONDS = 0.05
_GLANCE_SECONDS = 0.05
_PATIENCE_SECONDS = 5.0
_STAYS_SECONDS = (0.0, 0.02, 0.3, 1.0, 2.0)
_AWAY_SECONDS = (0.1, 0.5, 1.0, 4.0)


class Wanderer:
    """Somebody with one path who is on whichever node is there."""

    def __init__(self, urls: Callable[[], Sequence[str]], user: str, chance: random.Random) -> None:
        self.path = f"{user}/laptop/main"
        self.logins = 0
        self._key = SigningKey(chance.randbytes(32))
        self._user = user
        self._urls = urls
        self._chance = chance
        self._peer: V2Peer | None = None

    async def register(self) -> V2Peer:
        """Come in for the first time."""
        self._peer = await V2Peer.login(self._chance.choice(self._urls()), self._key, register=(self._user, "laptop"))
        return self._peer

    async def insist(self, request: Callable[[V2Peer], Awaitable[T]], channel: str) -> T:
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
        """Drop the connection without a word."""
        if self._peer is not None:
            await self._peer.cut()

    async def go_home(self) -> None:
        if self._peer is not None:
            await self._peer.close()

    async def _connected(self) -> V2Peer:
        if self._peer is None or self._peer.is_closed:
            if self._peer is not None:
                await self._peer.cut()
            self._peer = None
            async with asyncio.timeout(_PATIENCE_SECONDS):
                self._peer = await V2Peer.login(self._chance.choice(self._urls()), self._key)
            self.logins += 1
        return self._peer


class Visitor(Wanderer):
    """Somebody who hears one channel, now and then drops the connection or leaves, and always comes back.

    It comes back with the last message that it has handled; sometimes, after it has left, as one who is new.
    """

    def __init__(
        self,
        urls: Callable[[], Sequence[str]],
        user: str,
        chance: random.Random,
        archive: Archive,
        *,
        since: str | None,
    ) -> None:
        """`since` is what it joins with the first time."""
        super().__init__(urls, user, chance)
        self.stays: list[Stay] = []
        self.strays: list[Json] = []
        """What came outside of all stays."""
        self.cuts = 0
        self.leaves = 0
        self._archive = archive
        self._since = since
        self._asked = Asked(None, START, START)
        self._heard_from: V2Peer | None = None
        self._handled = 0
        self._inside = False

    @property
    def position(self) -> str | None:
        """The last message that was handled; None before the first stay."""
        return self.stays[-1].end if self.stays else None

    async def visit(self, channel: str, *, calm: Callable[[], bool], over: Callable[[], bool]) -> None:
        """Come and go until it is calm, then stay until it is over."""
        while not over():
            try:
                peer = await self._connected()
                await self._enter(peer, channel)
                await self._listen(peer, calm, over)
                if not over() and not peer.is_closed:
                    await self._depart(peer, channel)
            except V2Refused:
                await pause(_REST_SECONDS)  # Redis is away; the connection is still good
            except _LOST:
                await self.cut()
                await pause(_REST_SECONDS)
        with suppress(*_LOST):
            await (await self._connected()).ask("ping")  # whatever came too much has arrived with the answer
        self._handle()

    async def _enter(self, peer: V2Peer, channel: str) -> None:
        if peer is not self._heard_from:
            self._heard_from, self._handled, self._inside = peer, 0, False
        self._asked = Asked(self._since, self._archive.said, self._archive.trimmed)
        await peer.join(channel, **({} if self._since is None else {"since": self._since}))
        self._handle()

    async def _listen(self, peer: V2Peer, calm: Callable[[], bool], over: Callable[[], bool]) -> None:
        """Handle what comes in, at a glance now and then. What came after the last glance is handled or not."""
        loop = asyncio.get_running_loop()
        end = loop.time() + self._chance.choice(_STAYS_SECONDS)
        while not (over() or peer.is_closed) and (calm() or loop.time() < end):
            self._handle()
            await pause(_GLANCE_SECONDS)
        if self._chance.random() < 0.5:
            self._handle()

    async def _depart(self, peer: V2Peer, channel: str) -> None:
        if self._chance.random() < 0.5:
            self.cuts += 1
            await self.cut()
            return
        self.leaves += 1
        try:
            await peer.ask("leave", channel=channel)
        except V2Refused:
            await self.cut()  # it may have left or not
            return
        self._handle()
        await pause(self._chance.uniform(0, self._chance.choice(_AWAY_SECONDS)))
        if self._chance.random() < 0.2:
            self._since = None

    def _handle(self) -> None:
        """Handle what has come in, in the order in which it came."""
        frames = self._heard_from.log if self._heard_from is not None else []
        for frame in frames[self._handled :]:
            match frame:
                case {"position": position}:
                    answer = frame.get("recovered")
                    self.stays.append(Stay(self._asked, position, answer, self._archive.trimming))
                    self._inside, self._since = True, self.position
                case {"ev": "message", "id": position} if self._inside:
                    self.stays[-1].steps.append(position)
                    self._since = position
                case {"ev": "gap", "after": after} if self._inside:
                    self.stays[-1].steps.append(Gap(after, self._archive.trimming))
                case {"ev": "closing"} | {"error": _}:
                    pass
                case {"ev": _}:
                    self.strays.append(frame)
                case {"channel": _}:
                    self._inside = False
        self._handled = len(frames)
