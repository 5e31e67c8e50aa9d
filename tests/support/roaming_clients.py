"""Clients of protocol v2 as docs/protocol.md asks for: they reconnect, resume, and retry requests without a reply."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import TypeVar

import aiohttp
from nacl.signing import SigningKey

from relay.model.message import START
from tests.support.delivery_check import Gap, JoinRequest, Stay
from tests.support.trimmed_log import TrimmedLog
from tests.support.v2_peer import Json, V2Closed, V2Peer, V2Refused
from tests.support.waiting import pause

T = TypeVar("T")

_LOST = (OSError, aiohttp.ClientError, TimeoutError, V2Closed, V2Refused)
_REST_SECONDS = 0.05
_HANDLE_SECONDS = 0.05
_PATIENCE_SECONDS = 5.0
_STAYS_SECONDS = (0.0, 0.02, 0.3, 1.0, 2.0)
_LEFT_SECONDS = (0.1, 0.5, 1.0, 4.0)


class RoamingClient:
    """A client with one path, connected to any node that is up."""

    def __init__(self, urls: Callable[[], Sequence[str]], user: str, chance: random.Random) -> None:
        self.path = f"{user}/laptop/main"
        self.logins = 0
        self._key = SigningKey(chance.randbytes(32))
        self._user = user
        self._urls = urls
        self._chance = chance
        self._peer: V2Peer | None = None

    async def register(self) -> V2Peer:
        """Log in for the first time, as a new user."""
        self._peer = await V2Peer.login(self._chance.choice(self._urls()), self._key, register=(self._user, "laptop"))
        return self._peer

    async def ask_until_answered(self, request: Callable[[V2Peer], Awaitable[T]], channel: str) -> T:
        """Repeat a request, at any node, until there is a reply."""
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
        """Drop the connection without a close."""
        if self._peer is not None:
            await self._peer.cut()

    async def close(self) -> None:
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


class ResumingClient(RoamingClient):
    """A client that joins one channel, now and then drops the connection or leaves, and always joins again.

    It resumes after the last message that it has handled; sometimes, after it has left, it joins without `since`.
    """

    def __init__(
        self,
        urls: Callable[[], Sequence[str]],
        user: str,
        chance: random.Random,
        log: TrimmedLog,
        *,
        since: str | None,
    ) -> None:
        """`since` is the position of its first join."""
        super().__init__(urls, user, chance)
        self.stays: list[Stay] = []
        self.unexpected: list[Json] = []
        """The events that came while it was not in the channel."""
        self.cuts = 0
        self.leaves = 0
        self._log = log
        self._since = since
        self._request = JoinRequest(None, START, START)
        self._source: V2Peer | None = None
        self._handled = 0
        self._joined = False

    @property
    def position(self) -> str | None:
        """The last message that was handled; None before the first stay."""
        return self.stays[-1].end if self.stays else None

    async def run(self, channel: str, *, calm: Callable[[], bool], over: Callable[[], bool]) -> None:
        """Join and leave until `calm` is true, then stay until `over` is."""
        while not over():
            try:
                peer = await self._connected()
                await self._join(peer, channel)
                await self._read(peer, calm, over)
                if not over() and not peer.is_closed:
                    await self._leave(peer, channel)
            except V2Refused:
                await pause(_REST_SECONDS)  # Redis is away; the connection is still good
            except _LOST:
                await self.cut()
                await pause(_REST_SECONDS)
        with suppress(*_LOST):
            await (await self._connected()).ask("ping")  # any event too many has arrived before the reply
        self._handle()

    async def _join(self, peer: V2Peer, channel: str) -> None:
        if peer is not self._source:
            self._source, self._handled, self._joined = peer, 0, False
        self._request = JoinRequest(self._since, self._log.last_acknowledged, self._log.trimmed)
        await peer.join(channel, **({} if self._since is None else {"since": self._since}))
        self._handle()

    async def _read(self, peer: V2Peer, calm: Callable[[], bool], over: Callable[[], bool]) -> None:
        """Handle arrived messages now and then. Those that came after the last time are handled or not."""
        loop = asyncio.get_running_loop()
        end = loop.time() + self._chance.choice(_STAYS_SECONDS)
        while not (over() or peer.is_closed) and (calm() or loop.time() < end):
            self._handle()
            await pause(_HANDLE_SECONDS)
        if self._chance.random() < 0.5:
            self._handle()

    async def _leave(self, peer: V2Peer, channel: str) -> None:
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
        await pause(self._chance.uniform(0, self._chance.choice(_LEFT_SECONDS)))
        if self._chance.random() < 0.2:
            self._since = None

    def _handle(self) -> None:
        """Handle arrived frames in their order."""
        frames = self._source.log if self._source is not None else []
        for frame in frames[self._handled :]:
            match frame:
                case {"position": position}:
                    answer = frame.get("recovered")
                    self.stays.append(Stay(self._request, position, answer, self._log.trimming))
                    self._joined, self._since = True, self.position
                case {"ev": "message", "id": position} if self._joined:
                    self.stays[-1].steps.append(position)
                    self._since = position
                case {"ev": "gap", "after": after} if self._joined:
                    self.stays[-1].steps.append(Gap(after, self._log.trimming))
                case {"ev": "closing"} | {"error": _}:
                    pass
                case {"ev": _}:
                    self.unexpected.append(frame)
                case {"channel": _}:
                    self._joined = False
        self._handled = len(frames)
