"""Clients of protocol v2 as docs/protocol.md asks for: they reconnect, resume, and retry requests without a reply."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import TypeVar

import aiohttp
from nacl.signing import SigningKey

from relay.model.message import START
from tests.chaos.channel_log import ChannelLog
from tests.chaos.deliveries import Gap, JoinRequest, Stay
from tests.support.v2_peer import Json, V2Closed, V2Peer, V2Refused
from tests.support.waiting import pause

T = TypeVar("T")
Urls = Callable[[], Sequence[str]]
"""Returns the URLs of the nodes that run."""

LOST = (OSError, aiohttp.ClientError, TimeoutError, V2Closed, V2Refused)
_REST_SECONDS = 0.05
_HANDLE_SECONDS = 0.05
_PATIENCE_SECONDS = 10.0
_PING_SECONDS = 1.0
_STAYS_SECONDS = (0.0, 0.02, 0.3, 1.0, 2.0)
_LEFT_SECONDS = (0.1, 0.5, 1.0, 4.0)
_ANSWER_SECONDS = (0.001, 0.003, 5, 5, 5, 5)
"""The waits of a talker for a reply, before it sends the same message again."""


class RoamingClient:
    """A client with one path, connected to any node that is up."""

    def __init__(self, urls: Urls, user: str, chance: random.Random) -> None:
        self.path = f"{user}/laptop/main"
        self.logins = 0
        self.key = SigningKey(chance.randbytes(32))
        self._user = user
        self._urls = urls
        self._chance = chance
        self._peer: V2Peer | None = None

    async def register(self) -> V2Peer:
        """Log in for the first time, as a new user. Raises the errors of `LOST`."""
        async with asyncio.timeout(_PATIENCE_SECONDS):
            self._peer = await V2Peer.login(
                self._chance.choice(self._urls()), self.key, register=(self._user, "laptop")
            )
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
            except LOST:
                await pause(_REST_SECONDS)
                if self._chance.random() < 0.5:  # or is the connection still good?
                    await self.cut()

    async def cut(self) -> None:
        """Drop the connection without a close."""
        if self._peer is not None:
            await self._peer.cut()

    async def _connected(self) -> V2Peer:
        if self._peer is None or self._peer.is_closed:
            if self._peer is not None:
                await self._peer.cut()
            self._peer = None
            urls = self._urls()
            if not urls:
                raise ConnectionRefusedError("no node runs")
            async with asyncio.timeout(_PATIENCE_SECONDS):
                self._peer = await V2Peer.login(self._chance.choice(urls), self.key)
            self.logins += 1
        return self._peer


class Talker(RoamingClient):
    """A client that posts messages, each with an idempotency key until it is acknowledged."""

    async def run(self, channel: str, log: ChannelLog, padding: str, *, least: int, calm: Callable[[], bool]) -> None:
        """Post `least` messages at least, and go on until it is calm; the last one is sent when it is."""
        count = 0
        while True:
            last, text, key = count >= least and calm(), f"{count} {padding}", f"key {count}"

            async def send(peer: V2Peer, text: str = text, key: str = key) -> str:
                async with asyncio.timeout(self._chance.choice(_ANSWER_SECONDS)):
                    return await peer.post(channel, text, key=key)

            log.acknowledge(await self.ask_until_answered(send, channel), self.path)
            if last:
                return
            count += 1
            if self._chance.random() < 0.5:  # else two in a row
                await pause(self._chance.uniform(0, 0.8))


class Resident(RoamingClient):
    """A client that stays in one channel, and reconnects as soon as its connection ends or is silent."""

    def __init__(self, urls: Urls, user: str, chance: random.Random) -> None:
        super().__init__(urls, user, chance)
        self._joined: V2Peer | None = None

    @property
    def is_there(self) -> bool:
        """It has joined, and its connection is open, as far as it knows."""
        return self._joined is not None and not self._joined.is_closed

    async def run(self, channel: str) -> None:
        """Stay until cancelled."""
        while True:
            try:
                peer = await self._connected()
                async with asyncio.timeout(_PATIENCE_SECONDS):
                    await peer.join(channel)
                self._joined = peer
                while not peer.is_closed:
                    await check(peer)
                    await pause(_PING_SECONDS / 2)
            except LOST:
                await self.cut()
            await pause(_REST_SECONDS)

    async def who(self, channel: str | None) -> list[str]:
        """Ask for the presence of a channel, or of the server. Raises the errors of `LOST`."""
        if self._joined is None or self._joined.is_closed:
            raise ConnectionResetError("not in the channel")
        async with asyncio.timeout(_PATIENCE_SECONDS):
            return [
                str(path)
                for path in (await self._joined.ask("who", **({} if channel is None else {"channel": channel})))[
                    "sessions"
                ]
            ]


class Listener(RoamingClient):
    """A client that joins one channel, now and then drops the connection or leaves, and always joins again.

    It resumes after the last message that it has handled; sometimes, after it has left, it joins without `since`.
    """

    def __init__(self, urls: Urls, user: str, chance: random.Random, log: ChannelLog, *, since: str | None) -> None:
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

    @property
    def delivered(self) -> list[str]:
        """The ids of all messages that were handled."""
        return [step for stay in self.stays for step in stay.steps if isinstance(step, str)]

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
            except LOST:
                await self.cut()
                await pause(_REST_SECONDS)
        with suppress(*LOST):
            await check(await self._connected())  # any event too many has arrived before the reply
        self._handle()

    async def _join(self, peer: V2Peer, channel: str) -> None:
        if peer is not self._source:
            self._source, self._handled, self._joined = peer, 0, False
        self._request = JoinRequest(self._since, self._log.last_acknowledged, self._log.trimmed, self._log.losses.known)
        async with asyncio.timeout(_PATIENCE_SECONDS):
            await peer.join(channel, **({} if self._since is None else {"since": self._since}))
        self._handle()

    async def _read(self, peer: V2Peer, calm: Callable[[], bool], over: Callable[[], bool]) -> None:
        """Handle arrived messages now and then. Those that came after the last time are handled or not."""
        loop = asyncio.get_running_loop()
        end = loop.time() + self._chance.choice(_STAYS_SECONDS)
        next_check = loop.time() + _PING_SECONDS
        while not (over() or peer.is_closed) and (calm() or loop.time() < end):
            self._handle()
            await pause(_HANDLE_SECONDS)
            if loop.time() > next_check:
                await check(peer)
                next_check = loop.time() + _PING_SECONDS
        if self._chance.random() < 0.5:
            self._handle()

    async def _leave(self, peer: V2Peer, channel: str) -> None:
        if self._chance.random() < 0.5:
            self.cuts += 1
            await self.cut()
            return
        self.leaves += 1
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
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
                    self.stays.append(Stay(self._request, position, answer, self._log.trimming, []))
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


async def check(peer: V2Peer) -> None:
    """Ask for a sign of life. Raises TimeoutError if the connection is silent, and the errors of `LOST`."""
    async with asyncio.timeout(_PATIENCE_SECONDS):
        await peer.ask("ping")
