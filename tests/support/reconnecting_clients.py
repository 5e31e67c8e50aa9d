"""Clients that stay for as long as they are let, and come back whenever their connection ends."""

import asyncio
from collections.abc import Callable
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
"""A connection that ends in the middle of a login is something else than the reply that a test's peer asserts."""


class Guest:
    """Somebody with our own client, at one address. A wait before a return is `scale` times what that client keeps."""

    def __init__(self, url: str, user: str, scale: float) -> None:
        self.lost_at: list[float] = []
        self.back_at: list[float] = []
        self.failures: list[str] = []
        """What went wrong when it came back, each time that it was not let in."""
        self._url = url
        self._user = user
        self._scale = scale
        self._key = MachineKey.generate()
        self._link: Link | None = None

    async def arrive(self) -> Link:
        """Come in for the first time."""
        self._link = await connect(self._url, self._key, "main", register=(self._user, "laptop"))
        return self._link

    async def leave(self) -> None:
        if self._link is not None:
            await self._link.close()

    async def _return(self, lost: LinkLost) -> Link:
        """Come back after a connection has ended, however often it takes. Raises what is final."""
        clock = asyncio.get_running_loop().time
        self.lost_at.append(clock())
        backoff = Backoff(first=self._scale)
        error: ConclaveError = lost
        while may_retry(error):
            await pause(max(backoff.wait(), not_before(error) * self._scale))
            try:
                self._link = await connect(self._url, self._key, "main")
            except ConclaveError as refused:
                self.failures.append(f"{self._user}: {refused}")
                error = refused
            else:
                self.back_at.append(clock())
                return self._link
        raise error


class Listener(Guest):
    """Hears a channel from its beginning, and continues where it was."""

    def __init__(self, url: str, user: str, scale: float) -> None:
        super().__init__(url, user, scale)
        self.heard: list[str] = []
        """The ids of all messages, in the order in which they came."""
        self.gaps = 0

    async def listen(self, channel: str) -> None:
        """Do so until it is cancelled."""
        link = self._link or await self.arrive()
        while True:
            try:
                joined = await link.request(Join(channel, since=self.heard[-1] if self.heard else "0-0"))
                self.gaps += joined.recovered is not True
                async for event in link.events():
                    if isinstance(event, Message):
                        assert event.id is not None
                        self.heard.append(event.id)
                    self.gaps += isinstance(event, Gap)
            except LinkLost as lost:
                link = await self._return(lost)


class Speaker(Guest):
    """Says something now and then, each until it is acknowledged, under a key."""

    def __init__(self, url: str, user: str, scale: float) -> None:
        super().__init__(url, user, scale)
        self.acknowledged: list[tuple[str | None, str]] = []
        """Ids and texts."""

    async def speak(self, channel: str, rest: float, *, until: Callable[[], bool]) -> None:
        """Pause for `rest` seconds after each."""
        link = self._link or await self.arrive()
        joined = False
        while not until():
            text = f"{self._user} {len(self.acknowledged)}"
            try:
                if not joined:
                    joined = bool(await link.request(Join(channel)))
                sent = await link.request(Send(channel, Body(text), key=text))
            except LinkLost as lost:
                link, joined = await self._return(lost), False
                continue
            self.acknowledged.append((sent.id, text))
            await pause(rest)


class OldSpeaker:
    """The same with a client of protocol v1, which has no keys: what it was not answered for, it does not say again."""

    def __init__(self, url: str, user: str, scale: float) -> None:
        self.acknowledged: list[str] = []
        self.doubtful: list[str] = []
        self.failures: list[str] = []
        self.returns = 0
        self._url = url
        self._user = user
        self._scale = scale
        self._key = SigningKey.generate()
        self._peer: Peer | None = None

    async def speak(self, channel: str, rest: float, *, until: Callable[[], bool]) -> None:
        """Pause for `rest` seconds after each."""
        peer = self._peer = await Peer.login(self._url, self._key, register=(self._user, "laptop"))
        joined = False
        while not until():
            text = None
            try:
                if not joined:
                    await peer.join(channel)
                    joined = True
                text = f"{self._user} {len(self.acknowledged) + len(self.doubtful)}"
                await peer.post(channel, text)
            except (*LOST, Refused) as error:
                if isinstance(error, Refused) and SHUTDOWN not in str(error):
                    raise
                self.doubtful += [] if text is None else [text]
                peer, joined = await self._return(), False
            else:
                self.acknowledged.append(text)
                await pause(rest)

    async def leave(self) -> None:
        if self._peer is not None:
            await self._peer.close()

    async def _return(self) -> Peer:
        await self.leave()
        backoff = Backoff(first=self._scale)
        while True:
            await pause(backoff.wait())
            try:
                self._peer = await Peer.login(self._url, self._key)
            except NO_LOGIN as error:
                self.failures.append(f"{self._user}: {error!r}")
            else:
                self.returns += 1
                return self._peer


class Newcomers:
    """People who come for the first time, one after the other, each with one attempt, and go again."""

    def __init__(self, url: str) -> None:
        self.count = 0
        self.failures: list[str] = []
        self._url = url

    async def come(self, rest: float, *, until: Callable[[], bool]) -> None:
        """One every `rest` seconds, however long the earlier ones take; in both versions of the protocol."""
        async with asyncio.TaskGroup() as visits:
            while not until():
                visits.create_task(self._visit(self.count))
                self.count += 1
                await pause(rest)

    async def _visit(self, number: int) -> None:
        kind: Any = (Peer, V2Peer)[number % 2]
        try:
            async with asyncio.timeout(10):
                peer = await kind.register(self._url, f"newcomer{number}")
        except NO_LOGIN as error:
            self.failures.append(f"newcomer {number}: {error!r}")
        else:
            await peer.close()
