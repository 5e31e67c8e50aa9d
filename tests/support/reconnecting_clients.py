"""Clients that reconnect whenever their connection ends, and count what goes wrong."""

import asyncio
from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import cycle
from typing import Any

import aiohttp
from nacl.signing import SigningKey

from conclave.backoff import Backoff
from conclave.client.link import Link, connect
from conclave.client.retry import may_retry, not_before
from conclave.errors import ConclaveError, LinkLost
from conclave.machine.keys import MachineKey
from conclave.protocol.body import Body
from conclave.protocol.close_texts import SHUTDOWN
from conclave.protocol.events import Gap, Message
from conclave.protocol.requests import Join, Send
from tests.support.peer import Peer, Refused
from tests.support.v2_peer import V2Closed, V2Peer
from tests.support.waiting import pause

LOST = (OSError, aiohttp.ClientError, TimeoutError)
NO_LOGIN = (*LOST, AssertionError, Refused, V2Closed)
"""A connection that ends during a login fails an assertion of a test's peer, which expects a reply."""


class ReconnectingClient:
    """A user with our own client, at each of some URLs in turn. Its waits are `scale` times those of that client."""

    def __init__(self, urls: str | Sequence[str], user: str, scale: float = 1.0) -> None:
        self.lost_at: list[float] = []
        self.reconnected_at: list[float] = []
        self.failures: list[str] = []
        """The errors of its reconnects."""
        self._urls = cycle([urls] if isinstance(urls, str) else urls)
        self._user = user
        self._scale = scale
        self._key = MachineKey.generate()
        self._link: Link | None = None

    async def register(self) -> Link:
        """Connect for the first time, as a new user."""
        self._link = await connect(next(self._urls), self._key, "main", register=(self._user, "laptop"))
        return self._link

    async def stay_connected(self) -> None:
        """Reconnect whenever the connection ends, until cancelled."""
        link = self._link or await self.register()
        while True:
            try:
                async for _ in link.events():
                    pass
            except LinkLost as lost:
                link = await self._reconnect(lost)

    async def close(self) -> None:
        if self._link is not None:
            await self._link.close()

    async def _reconnect(self, lost: LinkLost) -> Link:
        """Connect again after a connection has ended, with as many attempts as it takes. Raises a final error."""
        clock = asyncio.get_running_loop().time
        self.lost_at.append(clock())
        backoff = Backoff(first=self._scale)
        error: ConclaveError = lost
        while may_retry(error):
            await pause(max(backoff.wait(), not_before(error) * self._scale))
            try:
                self._link = await connect(next(self._urls), self._key, "main")
            except ConclaveError as refused:
                self.failures.append(f"{self._user}: {refused}")
                error = refused
            else:
                self.reconnected_at.append(clock())
                return self._link
        raise error


class Reader(ReconnectingClient):
    """Reads a channel from its beginning, and resumes at its last message."""

    def __init__(self, urls: str | Sequence[str], user: str, scale: float) -> None:
        super().__init__(urls, user, scale)
        self.received: list[str] = []
        """The ids of all messages, in the order in which they came."""
        self.gaps = 0

    async def run(self, channel: str) -> None:
        """Read until cancelled."""
        link = self._link or await self.register()
        while True:
            try:
                joined = await link.request(Join(channel, since=self.received[-1] if self.received else "0-0"))
                self.gaps += joined.recovered is not True
                async for event in link.events():
                    if isinstance(event, Message):
                        assert event.id is not None
                        self.received.append(event.id)
                    self.gaps += isinstance(event, Gap)
            except LinkLost as lost:
                link = await self._reconnect(lost)


class Sender(ReconnectingClient):
    """Sends messages, each with an idempotency key until it is acknowledged."""

    def __init__(self, urls: str | Sequence[str], user: str, scale: float) -> None:
        super().__init__(urls, user, scale)
        self.acknowledged: list[tuple[str | None, str]] = []
        """Ids and texts."""

    async def run(self, channel: str, rest: float, *, until: Callable[[], bool]) -> None:
        """Send, with a pause of `rest` seconds after each message."""
        link = self._link or await self.register()
        joined = False
        while not until():
            text = f"{self._user} {len(self.acknowledged)}"
            try:
                if not joined:
                    joined = bool(await link.request(Join(channel)))
                sent = await link.request(Send(channel, Body(text), key=text))
            except LinkLost as lost:
                link, joined = await self._reconnect(lost), False
                continue
            self.acknowledged.append((sent.id, text))
            await pause(rest)


class V1Sender:
    """The same with a client of protocol v1, which has no keys: a message without a reply is not sent again."""

    def __init__(self, url: str, user: str, scale: float) -> None:
        self.acknowledged: list[str] = []
        self.unanswered: list[str] = []
        self.failures: list[str] = []
        self.reconnects = 0
        self._url = url
        self._user = user
        self._scale = scale
        self._key = SigningKey.generate()
        self._peer: Peer | None = None

    async def run(self, channel: str, rest: float, *, until: Callable[[], bool]) -> None:
        """Send, with a pause of `rest` seconds after each message."""
        peer = self._peer = await Peer.login(self._url, self._key, register=(self._user, "laptop"))
        joined = False
        while not until():
            text = None
            try:
                if not joined:
                    await peer.join(channel)
                    joined = True
                text = f"{self._user} {len(self.acknowledged) + len(self.unanswered)}"
                await peer.post(channel, text)
            except (*LOST, Refused) as error:
                if isinstance(error, Refused) and SHUTDOWN not in str(error):
                    raise
                self.unanswered += [] if text is None else [text]
                peer, joined = await self._reconnect(), False
            else:
                self.acknowledged.append(text)
                await pause(rest)

    async def close(self) -> None:
        if self._peer is not None:
            await self._peer.close()

    async def _reconnect(self) -> Peer:
        await self.close()
        backoff = Backoff(first=self._scale)
        while True:
            await pause(backoff.wait())
            try:
                self._peer = await Peer.login(self._url, self._key)
            except NO_LOGIN as error:
                self.failures.append(f"{self._user}: {error!r}")
            else:
                self.reconnects += 1
                return self._peer


class NewUsers:
    """Users that register, one after the other, each with one attempt, and disconnect."""

    def __init__(self, url: str) -> None:
        self.count = 0
        self.failures: list[str] = []
        self._url = url

    async def run(self, rest: float, *, until: Callable[[], bool]) -> None:
        """Register one every `rest` seconds, however long the earlier ones take; in both versions of the protocol."""
        async with asyncio.TaskGroup() as logins:
            while not until():
                logins.create_task(self._register(self.count))
                self.count += 1
                await pause(rest)

    async def _register(self, number: int) -> None:
        kind: Any = (Peer, V2Peer)[number % 2]
        try:
            async with asyncio.timeout(10):
                peer = await kind.register(self._url, f"new{number}")
        except NO_LOGIN as error:
            self.failures.append(f"new user {number}: {error!r}")
        else:
            await peer.close()


def greatest_share(moments: Sequence[float], seconds: float) -> float:
    """Return the greatest share of moments within this number of seconds."""
    moments = sorted(moments)
    return max(bisect_right(moments, at + seconds) - n for n, at in enumerate(moments)) / len(moments)
