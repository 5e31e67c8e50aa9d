"""`conclave bench`: what a connection, a post and a delivery take at a server, measured by sessions of this machine.

All sessions are in one private channel with a random name, which is deleted at the end, whatever happens. First each
post waits until the one before has arrived everywhere: latencies of a quiet server. Then one session keeps several
posts in flight: the throughput. This is one process; where it is busy, it measures itself.
"""

import asyncio
import contextlib
import math
import os
import secrets
import time
from collections.abc import AsyncIterator, Coroutine, Iterable, Sequence
from typing import Any, TypeVar

import msgspec

from cli.server_request import dial
from conclave.client.link import Link
from conclave.errors import ConclaveError, LinkLost
from conclave.machine.keys import MachineKey
from conclave.model import Visibility
from conclave.protocol.body import Body
from conclave.protocol.events import Message
from conclave.protocol.requests import ChannelCreate, ChannelDelete, Join, Send

LOGINS_AT_ONCE = 16
ARRIVAL_SECONDS = 10.0
"""The time limit for the last deliveries."""

_T = TypeVar("_T")


class Quantiles(msgspec.Struct, frozen=True):
    """Half of the durations are at most `p50`, 99 % at most `p99`, in milliseconds."""

    p50: float
    p99: float

    @classmethod
    def of(cls, milliseconds: Sequence[float]) -> "Quantiles":
        return cls(percentile(milliseconds, 0.5), percentile(milliseconds, 0.99))


class Phase(msgspec.Struct, frozen=True):
    """Posts of one phase. `post_ms` is until the reply, `delivery_ms` until another session has the message."""

    posts: int
    posts_per_second: float
    deliveries_per_second: float
    post_ms: Quantiles
    delivery_ms: Quantiles


class Report(msgspec.Struct, frozen=True):
    """The results. `connect_ms` is from the dial until the session has joined the channel."""

    server: str
    protocol: int
    sessions: int
    connect_ms: Quantiles
    one_at_a_time: Phase
    in_flight: Phase


def percentile(values: Sequence[float], share: float) -> float:
    """Return the least value that is not exceeded by this share of the values, of which there is one at least."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


async def measure(server: str, key: MachineKey, *, sessions: int, seconds: float, in_flight: int, size: int) -> Report:
    """Measure for so many seconds, connections excluded, with posts of `size` bytes.

    Raises:
        ConclaveError: if the server cannot be reached, refuses something, or does not deliver a message in time.
    """
    async with contextlib.AsyncExitStack() as stack:
        sender = await stack.enter_async_context(await dial(server, key, _handle(0)))
        channel = await stack.enter_async_context(_channel(server, key, sender))
        listeners, durations = await _connect(server, key, channel, sessions - 1, stack)
        load = _Load(sender, channel, "x" * size, listeners)
        await stack.enter_async_context(load.listening())
        quiet = await load.post(seconds / 2, in_flight=1)
        busy = await load.post(seconds / 2, in_flight=in_flight)
        return Report(server, sender.version, sessions, Quantiles.of(durations), quiet, busy)


def _handle(number: int) -> str:
    return f"bench-{os.getpid()}-{number}"


@contextlib.asynccontextmanager
async def _channel(server: str, key: MachineKey, sender: Link) -> AsyncIterator[str]:
    """Create a channel that only this user can see, and join it; delete it at the end of the block."""
    name = f"bench-{secrets.token_hex(8)}"
    await sender.request(ChannelCreate(name, Visibility.PRIVATE))
    try:
        await sender.request(Join(name))
        yield name
    finally:
        await _delete(server, key, sender, name)


async def _delete(server: str, key: MachineKey, sender: Link, name: str) -> None:
    """Delete the channel, over a new connection if the sender's is lost. Raises: ConclaveError."""
    try:
        await sender.request(ChannelDelete(name))
    except LinkLost:
        try:
            async with await dial(server, key, _handle(0)) as link:
                await link.request(ChannelDelete(name))
        except ConclaveError as error:
            raise ConclaveError(f"channel `{name}` was not deleted: {error}") from error


async def _connect(
    server: str, key: MachineKey, channel: str, count: int, stack: contextlib.AsyncExitStack
) -> tuple[list[Link], list[float]]:
    """Open sessions, and have them join; return them, and how long each has taken in milliseconds."""
    places = asyncio.Semaphore(LOGINS_AT_ONCE)

    async def connect(number: int) -> tuple[Link, float]:
        async with places:
            began = time.perf_counter()
            link = await stack.enter_async_context(await dial(server, key, _handle(number)))
            await link.request(Join(channel))
            return link, (time.perf_counter() - began) * 1000

    found = await _together(connect(number + 1) for number in range(count))
    return [link for link, _ in found], [duration for _, duration in found]


async def _together(coroutines: Iterable[Coroutine[Any, Any, _T]]) -> list[_T]:
    """Run coroutines at the same time and return their results; the first error ends all of them, and is raised."""
    tasks = [asyncio.create_task(each) for each in coroutines]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class _Load:
    """The posts of one session, and when they arrive at the others. A message begins with its number."""

    def __init__(self, sender: Link, channel: str, padding: str, listeners: Sequence[Link]) -> None:
        self._sender = sender
        self._channel = channel
        self._padding = padding
        self._listeners = listeners
        self._sent: list[float] = []
        self._replied: list[float] = []
        self._arrived: list[float] = []
        self._changed = asyncio.Event()
        self._failure: ConclaveError | None = None

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        """Take the messages of all listeners in the block."""
        tasks = [asyncio.create_task(self._listen(link)) for link in self._listeners]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _listen(self, link: Link) -> None:
        try:
            async for event in link.events():
                if isinstance(event, Message) and event.channel == self._channel:
                    number = int((event.body.text or "").partition(" ")[0])
                    self._arrived.append((time.perf_counter() - self._sent[number]) * 1000)
                    self._changed.set()
        except ConclaveError as error:
            self._failure = error
            self._changed.set()

    async def post(self, seconds: float, *, in_flight: int) -> Phase:
        """Post for so many seconds, with up to `in_flight` posts that have no reply yet.

        With one in flight, each post waits until the one before has arrived everywhere.
        """
        first = len(self._sent)
        del self._replied[:], self._arrived[:]
        began = time.perf_counter()
        end = began + seconds
        await _together(self._post_until(end, wait=in_flight == 1) for _ in range(in_flight))
        await self._all_arrived(len(self._sent) - first)
        took, posts = time.perf_counter() - began, len(self._sent) - first
        return Phase(
            posts,
            posts / took,
            posts * len(self._listeners) / took,
            Quantiles.of(self._replied),
            Quantiles.of(self._arrived),
        )

    async def _post_until(self, end: float, *, wait: bool) -> None:
        while (now := time.perf_counter()) < end:
            number = len(self._sent)
            self._sent.append(now)
            text = f"{number} {self._padding}"[: max(len(self._padding), len(str(number)))]
            await self._sender.request(Send(self._channel, Body(text=text)))
            self._replied.append((time.perf_counter() - now) * 1000)
            if wait:
                await self._all_arrived(len(self._replied))

    async def _all_arrived(self, posts: int) -> None:
        """Wait until so many posts of this phase have arrived everywhere. Raises: ConclaveError."""
        wanted = posts * len(self._listeners)
        try:
            async with asyncio.timeout(ARRIVAL_SECONDS):
                while len(self._arrived) < wanted and self._failure is None:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            missing = wanted - len(self._arrived)
            raise ConclaveError(f"{missing} of {wanted} messages did not arrive in {ARRIVAL_SECONDS:g}s") from None
        if self._failure is not None:
            raise self._failure
