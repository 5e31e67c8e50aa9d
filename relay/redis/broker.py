"""Live delivery: one connection that listens to every topic this node has subscribers for.

Pub/sub loses what is published while the connection is away. The broker does not hide that: it tells its listener when
a connection was lost and when all topics are subscribed again, and the listener reads the logs for what it missed.
"""

import asyncio
from typing import Protocol

import structlog
from redis.asyncio.connection import AbstractConnection

from relay.model.errors import StoreUnavailable
from relay.redis.client import BROKEN

log = structlog.get_logger()

_RETRY_SECONDS = 0.1
_UNBROKEN_READS = 64
"""How many buffered messages are handled before other tasks get a turn."""


class TopicHandler(Protocol):
    """Who hears the topics."""

    def heard(self, topic: str, data: bytes) -> None:
        """Take one message of one topic. Called in the order of publication, without pause; must not block."""

    def caught_up(self) -> None:
        """All topics are subscribed again after the connection was lost; what was published meanwhile is missing."""


class Source(Protocol):
    """Where subscriptions are made."""

    async def connection(self) -> AbstractConnection:
        """Open a connection without a read time-out. Raises: StoreUnavailable."""

    def count_error(self) -> None:
        """Count that one was lost."""

    def count_reconnect(self) -> None:
        """Count that one was made anew."""


class Broker:
    """Subscriptions of one node."""

    def __init__(self, source: Source, *, confirm_timeout: float) -> None:
        """`confirm_timeout` bounds how long a subscription may stay unconfirmed, in seconds."""
        self._source = source
        self._timeout = confirm_timeout
        self._connection: AbstractConnection | None = None
        self._topics: dict[str, asyncio.Future[None]] = {}
        self._connected = False
        self._lost = False
        self._sending = asyncio.Lock()

    @property
    def is_connected(self) -> bool:
        """Whether every topic is subscribed on a working connection."""
        return self._connected

    async def subscribe(self, topic: str) -> None:
        """Listen to a topic; when this returns, every later publication is heard. Raises: StoreUnavailable."""
        confirmed = self._topics.get(topic)
        if confirmed is None:
            confirmed = self._topics[topic] = asyncio.get_running_loop().create_future()
            await self._send("SUBSCRIBE", topic)
        try:
            async with asyncio.timeout(self._timeout):
                await asyncio.shield(confirmed)
        except TimeoutError:
            raise StoreUnavailable(f"subscription was not confirmed within {self._timeout:g} s") from None

    async def unsubscribe(self, topic: str) -> None:
        """Stop listening to a topic."""
        if self._topics.pop(topic, None) is not None:
            await self._send("UNSUBSCRIBE", topic)

    async def _send(self, *command: str) -> None:
        """Write a command; if the connection is away, the next one starts from `_topics` anyway."""
        connection = self._connection
        if connection is None:
            return
        try:
            async with self._sending:
                await connection.send_command(*command)
        except BROKEN as error:
            log.warning("broker.write_failed", error=str(error))
            await connection.disconnect(nowait=True)

    def drop(self, reason: str) -> None:
        """Give up the present connection, for instance because it has gone deaf; a new one is made."""
        if self._connection is not None:
            log.warning("broker.dropped", reason=reason)
            self._connected = False
            self._reading.cancel()

    async def serve(self, listener: TopicHandler) -> None:
        """Keep a connection and hand what it hears to `listener`, until cancelled."""
        while True:
            self._reading = asyncio.ensure_future(self._listen(listener))
            try:
                await asyncio.wait([self._reading])
                if self._connection is not None:
                    self._lost = True
                    self._source.count_error()
            finally:
                self._connected = False
                await self._hang_up()
            error = None if self._reading.cancelled() else self._reading.exception()
            if error is not None and not isinstance(error, (*BROKEN, StoreUnavailable)):
                raise error
            if error is not None:
                log.debug("broker.lost", error=str(error))
            await asyncio.sleep(_RETRY_SECONDS)

    async def _hang_up(self) -> None:
        self._reading.cancel()
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.disconnect(nowait=True)

    async def _listen(self, listener: TopicHandler) -> None:
        connection = await self._source.connection()
        self._connection = connection
        loop = asyncio.get_running_loop()
        for topic, confirmed in self._topics.items():
            if confirmed.done():
                self._topics[topic] = loop.create_future()
        missing = set(self._topics)
        if missing:
            async with self._sending:
                await connection.send_command("SUBSCRIBE", *missing)
        else:
            self._restored(listener)
        reads = 0
        while True:
            kind, topic, data = await connection.read_response()
            if kind == b"message":
                listener.heard(bytes(topic).decode(), data)
            elif kind == b"subscribe":
                name = bytes(topic).decode()
                self._confirm(name)
                if missing:
                    missing.discard(name)
                    if not missing:
                        self._restored(listener)
            reads += 1
            if reads % _UNBROKEN_READS == 0:
                await asyncio.sleep(0)

    def _confirm(self, topic: str) -> None:
        confirmed = self._topics.get(topic)
        if confirmed is not None and not confirmed.done():
            confirmed.set_result(None)

    def _restored(self, listener: TopicHandler) -> None:
        self._connected = True
        if self._lost:
            self._lost = False
            self._source.count_reconnect()
        log.debug("broker.connected", topics=len(self._topics))
        listener.caught_up()
