"""Live delivery: one connection that is subscribed to every topic of this node, and hands each message to its handler.

Pub/sub loses what is published while the connection is away. The broker does not hide that: when every topic is
subscribed again it calls those that registered with `on_resubscribed`, and they read the logs for what is missing.
"""

import asyncio
from collections.abc import Callable, Iterable
from typing import Protocol

import structlog
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError as LostConnection

from relay.model.errors import StoreUnavailable
from relay.redis.batches import NAMES, pieces
from relay.redis.connection import Connection, Reply, attach, pack
from relay.redis.failures import CONNECTION_ERRORS, RECONNECT_SECONDS, failed_connection

log = structlog.get_logger()

Handler = Callable[[bytes], None]
"""Takes the messages of one topic in the order of publication. It must not block or raise."""


class Topics(Protocol):
    """The subscriptions of one node."""

    @property
    def is_connected(self) -> bool:
        """True while every topic is subscribed on a working connection; of a Cluster, those of the needed masters."""

    def on_resubscribed(self, callback: Callable[[Iterable[bytes]], None]) -> None:
        """Have `callback` called with topics that are subscribed again after an interruption.

        Messages that were published to them meanwhile were not delivered.
        """

    async def subscribe(self, topic: str, handle: Handler) -> None:
        """Subscribe to a topic; `handle` gets every message that is published after this returns.

        A topic has one handler: that of the last call. Raises: StoreUnavailable.
        """

    def unsubscribe(self, *topics: str) -> None:
        """End subscriptions. Their handlers are not called from now on."""

    def drop(self, reason: str) -> None:
        """Give up the present connections, for instance because nothing arrives; `serve` makes new ones."""

    async def serve(self) -> None:
        """Keep connections and hand their messages to the topics' handlers, until cancelled."""


class Source(Protocol):
    """The server at which topics are subscribed."""

    async def connection(self) -> AbstractConnection:
        """Open a connection without a read time-out. Raises: StoreUnavailable."""

    def count_error(self) -> None:
        """Count a connection that was lost."""

    def count_reconnect(self) -> None:
        """Count a connection that was made again."""


class _Topic:
    """A handler, and the confirmation of its topic on the present connection."""

    __slots__ = ("confirmed", "handle")

    def __init__(self, handle: Handler) -> None:
        self.handle = handle
        self.confirmed: asyncio.Future[None] = asyncio.get_running_loop().create_future()


class Broker:
    """The subscriptions of one node, at one server."""

    def __init__(self, source: Source, *, confirm_timeout: float) -> None:
        """`confirm_timeout` bounds the time that a subscription may stay unconfirmed, in seconds."""
        self._source = source
        self._timeout = confirm_timeout
        self._connection: Connection | None = None
        self._topics: dict[bytes, _Topic] = {}
        self._on_resubscribed: list[Callable[[Iterable[bytes]], None]] = []
        self._connected = False
        self._lost = False
        self._unconfirmed: set[bytes] = set()
        """The topics of before the present connection that it has not confirmed yet."""

    @property
    def is_connected(self) -> bool:
        """True while every topic is subscribed on a working connection."""
        return self._connected

    def on_resubscribed(self, callback: Callable[[Iterable[bytes]], None]) -> None:
        """Have `callback` called each time that every topic is subscribed on a new connection, with all of them.

        Messages that were published while there was none were not delivered.
        """
        self._on_resubscribed.append(callback)

    async def subscribe(self, topic: str, handle: Handler) -> None:
        """Subscribe to a topic; `handle` gets every message that is published after this returns.

        A topic has one handler: that of the last call. Raises: StoreUnavailable.
        """
        name = topic.encode()
        subscription = self._topics.get(name)
        if subscription is None:
            subscription = self._topics[name] = _Topic(handle)
            self._send("SUBSCRIBE", [name])
        else:
            subscription.handle = handle
        try:
            async with asyncio.timeout(self._timeout):
                await asyncio.shield(subscription.confirmed)
        except TimeoutError:
            raise StoreUnavailable(f"subscription was not confirmed within {self._timeout:g} s") from None

    def unsubscribe(self, *topics: str) -> None:
        """End subscriptions. Their handlers are not called from now on."""
        names = [topic.encode() for topic in topics]
        self._send("UNSUBSCRIBE", [name for name in names if self._topics.pop(name, None) is not None])

    def drop(self, reason: str) -> None:
        """Give up the present connection, for instance because nothing arrives on it; `serve` makes a new one."""
        if self._connection is not None:
            log.warning("broker.dropped", reason=reason)
            self._connection.abort(LostConnection(reason))

    async def serve(self) -> None:
        """Keep a connection and hand its messages to the topics' handlers, until cancelled."""
        while True:
            try:
                await self._serve_connection()
            except (*CONNECTION_ERRORS, StoreUnavailable) as error:
                log.debug("broker.lost", error=failed_connection(error).why)
            await asyncio.sleep(RECONNECT_SECONDS)

    async def _serve_connection(self) -> None:
        """Receive messages on a new connection until it is lost. Raises the error that ended it."""
        opened = await self._source.connection()
        self._connection = connection = attach(opened, self._receive, self._lose)
        try:
            self._subscribe_all()
            raise await connection.lost
        finally:
            self._connected = False
            self._connection = None
            await connection.close()

    def _lose(self, _: Exception) -> None:
        self._connected = False
        self._connection = None
        self._lost = True
        self._source.count_error()

    def _send(self, command: str, names: Iterable[bytes]) -> None:
        """Write a command, in pieces. If the connection is away, the next one subscribes to all of `_topics` anyway."""
        if self._connection is not None:
            self._connection.write([pack((command, *piece)) for piece in pieces(names, NAMES)])

    def _subscribe_all(self) -> None:
        loop = asyncio.get_running_loop()
        for topic in self._topics.values():
            if topic.confirmed.done():
                topic.confirmed = loop.create_future()
        self._unconfirmed = set(self._topics)
        if self._unconfirmed:
            self._send("SUBSCRIBE", self._topics)
        else:
            self._resubscribed()

    def _receive(self, reply: Reply) -> None:
        if isinstance(reply, Exception):
            raise reply
        kind, name, data = reply
        if kind == b"message":
            self._dispatch(name, data)
        elif kind == b"subscribe":
            self._confirm(name)

    def _dispatch(self, name: bytes, data: bytes) -> None:
        topic = self._topics.get(name)
        if topic is not None:
            topic.handle(data)

    def _confirm(self, name: bytes) -> None:
        topic = self._topics.get(name)
        if topic is not None and not topic.confirmed.done():
            topic.confirmed.set_result(None)
        if self._unconfirmed:
            self._unconfirmed.discard(name)
            if not self._unconfirmed:
                self._resubscribed()

    def _resubscribed(self) -> None:
        self._connected = True
        if self._lost:
            self._lost = False
            self._source.count_reconnect()
        log.debug("broker.connected", topics=len(self._topics))
        for callback in self._on_resubscribed:
            callback(self._topics)
