"""Live delivery in a Cluster: one connection to each master, subscribed to the topics whose slots it has.

A message is published within the shard of its topic only. When a slot is moved its former master ends the
subscriptions; they are made again at the new one, as soon as the map of the slots shows it. Each time, and after each
lost connection, those that registered with `on_resubscribed` learn which topics were interrupted.
"""

import asyncio
from collections.abc import Callable, Iterable

import structlog
from redis.exceptions import ConnectionError as LostConnection

from relay.model.errors import StoreUnavailable
from relay.redis.broker import Handler
from relay.redis.client import RedisClient
from relay.redis.connection import Connection, Reply, attach, pack
from relay.redis.failures import CONNECTION_ERRORS, RECONNECT_SECONDS, ErrorReply
from relay.redis.sharding.client import ClusterClient

log = structlog.get_logger()

_PING_SECONDS = 2.0
_MISSED_PINGS = 3
"""The pings without a reply after which a connection is given up."""
_KEEPALIVE = b""
"""The text of a ping that is about no topic."""
_ELSEWHERE = ("MOVED", "ASK", "TRYAGAIN", "CLUSTERDOWN")


class _Topic:
    """A handler, the subscriber whose server has the topic, and the confirmation of that server."""

    __slots__ = ("at", "confirmed", "handle", "was_interrupted")

    def __init__(self, handle: Handler) -> None:
        self.handle = handle
        self.at: _Subscriber | None = None
        self.confirmed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.was_interrupted = False

    def interrupt(self) -> None:
        """Expect another confirmation."""
        self.was_interrupted = True
        if self.confirmed.done():
            self.confirmed = asyncio.get_running_loop().create_future()


class ShardedBroker:
    """The subscriptions of one node in a Cluster."""

    def __init__(self, cluster: ClusterClient, *, confirm_timeout: float) -> None:
        """`confirm_timeout` bounds the time that a subscription may stay unconfirmed, in seconds."""
        self._cluster = cluster
        self._timeout = confirm_timeout
        self._subscribers: dict[RedisClient, _Subscriber] = {}
        self._topics: dict[bytes, _Topic] = {}
        self._on_resubscribed: list[Callable[[Iterable[bytes]], None]] = []
        self._tasks: asyncio.TaskGroup | None = None
        cluster.on_mapped(self._follow)

    @property
    def is_connected(self) -> bool:
        """True while the topics of the needed keys' masters are subscribed on working connections."""
        needed = [self._subscribers.get(shard) for shard in self._cluster.needed_shards]
        return bool(needed) and all(each is not None and each.is_connected for each in needed)

    def on_resubscribed(self, callback: Callable[[Iterable[bytes]], None]) -> None:
        """Have `callback` called with topics that are subscribed again after an interruption.

        Messages that were published to them meanwhile were not delivered.
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
            self._place(name, subscription)
        else:
            subscription.handle = handle
        try:
            async with asyncio.timeout(self._timeout):
                await asyncio.shield(subscription.confirmed)
        except TimeoutError:
            raise StoreUnavailable(f"subscription was not confirmed within {self._timeout:g} s") from None

    def unsubscribe(self, *topics: str) -> None:
        """End subscriptions. Their handlers are not called from now on."""
        for name in (topic.encode() for topic in topics):
            subscription = self._topics.pop(name, None)
            if subscription is not None and subscription.at is not None:
                subscription.at.forget(name)

    def drop(self, reason: str) -> None:
        """Give up the present connections, for instance because nothing arrives; `serve` makes new ones."""
        log.warning("broker.dropped", reason=reason)
        for subscriber in self._subscribers.values():
            subscriber.abort(LostConnection(reason))

    async def serve(self) -> None:
        """Keep a connection to each master and hand the messages to the topics' handlers, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            self._follow()
            await asyncio.get_running_loop().create_future()

    # --- The masters ---

    def _follow(self) -> None:
        """Have a subscriber at each master, and each topic at the master that has its slot."""
        if self._tasks is None:
            return
        shards = set(self._cluster.shards.values())
        for shard in shards - set(self._subscribers):
            subscriber = self._subscribers[shard] = _Subscriber(shard, self)
            subscriber.serving = self._tasks.create_task(subscriber.serve())
        for shard in set(self._subscribers) - shards:
            self._subscribers.pop(shard).end()
        for name, topic in self._topics.items():
            self._place(name, topic)

    def _place(self, name: bytes, topic: _Topic) -> None:
        """Subscribe to a topic at the master that has its slot, unless it is subscribed there."""
        shard = self._cluster.shard_of(name.decode())
        at = None if shard is None else self._subscribers.get(shard)
        if at is None:
            self._cluster.refresh()
        elif topic.at is not at:
            if topic.at is not None:
                topic.at.forget(name)
                topic.interrupt()
            topic.at = at
            at.ask(name)

    # --- What the subscribers call ---

    def dispatch(self, name: bytes, data: bytes) -> None:
        """Hand a message over."""
        topic = self._topics.get(name)
        if topic is not None:
            topic.handle(data)

    def confirm(self, name: bytes) -> None:
        """Take note that a topic is subscribed."""
        topic = self._topics.get(name)
        if topic is not None and not topic.confirmed.done():
            topic.confirmed.set_result(None)
            if topic.was_interrupted:
                topic.was_interrupted = False
                self._resubscribed((name,))

    def interrupt(self, names: Iterable[bytes]) -> None:
        """Take note that topics have to be confirmed again: the connection is a new one."""
        for name in names:
            self._topics[name].interrupt()

    def lose(self, name: bytes, subscriber: "_Subscriber") -> None:
        """Take note that a server does not have a topic (any more)."""
        topic = self._topics.get(name)
        if topic is not None and topic.at is subscriber:
            topic.at = None
            topic.interrupt()
            self._cluster.refresh()

    def _resubscribed(self, names: Iterable[bytes]) -> None:
        for callback in self._on_resubscribed:
            callback(names)


class _Subscriber:
    """The connection to one master.

    The reply to a subscription that is refused does not name its topic. So each command is followed by a ping with the
    name, whose reply comes next.
    """

    def __init__(self, shard: RedisClient, broker: ShardedBroker) -> None:
        self._shard = shard
        self._broker = broker
        self._names: set[bytes] = set()
        self._unconfirmed: set[bytes] = set()
        """The topics of before the present connection that it has not confirmed yet."""
        self._connection: Connection | None = None
        self._refused = False
        """True between the refusal of a command and the reply to the ping behind it."""
        self._missed_pings = 0
        self._lost = False
        self.is_connected = False
        """True while every topic is subscribed on a working connection."""
        self.serving: asyncio.Task[None] | None = None

    async def serve(self) -> None:
        """Keep a connection, until cancelled."""
        while True:
            try:
                await self._serve_connection()
            except (*CONNECTION_ERRORS, StoreUnavailable) as error:
                log.debug("broker.lost", error=str(error))
            await asyncio.sleep(RECONNECT_SECONDS)

    def end(self) -> None:
        """End the connection for good: the server has no slots any more."""
        if self.serving is not None:
            self.serving.cancel()

    def abort(self, error: Exception) -> None:
        """Give up the present connection."""
        if self._connection is not None:
            self._connection.abort(error)

    def ask(self, name: bytes) -> None:
        """Subscribe to a topic. If the connection is away, the next one does it anyway."""
        self._names.add(name)
        self._write("SSUBSCRIBE", name, about=name)

    def forget(self, name: bytes) -> None:
        """End the subscription to a topic."""
        self._names.discard(name)
        self._forget_unconfirmed(name)
        self._write("SUNSUBSCRIBE", name, about=_KEEPALIVE)

    def _write(self, command: str, name: bytes, *, about: bytes) -> None:
        if self._connection is not None:
            self._connection.write([pack((command, name)), pack(("PING", about))])

    async def _serve_connection(self) -> None:
        opened = await self._shard.connection()
        self._connection = connection = attach(opened, self._receive, self._lose)
        self._refused, self._missed_pings = False, 0
        try:
            self._subscribe_all()
            while not (await asyncio.wait([connection.lost], timeout=_PING_SECONDS))[0]:
                self._check(connection)
            raise connection.lost.result()
        finally:
            self.is_connected = False
            self._connection = None
            await connection.close()

    def _check(self, connection: Connection) -> None:
        if self._missed_pings >= _MISSED_PINGS:
            connection.abort(LostConnection("it does not answer"))
        else:
            self._missed_pings += 1
            connection.write([pack(("PING", _KEEPALIVE))])

    def _lose(self, _: Exception) -> None:
        self.is_connected = False
        self._connection = None
        self._lost = True
        self._shard.count_error()

    def _subscribe_all(self) -> None:
        self._broker.interrupt(self._names)
        self._unconfirmed = set(self._names)
        if self._connection is not None:
            commands = [(("SSUBSCRIBE", name), ("PING", name)) for name in self._names]
            self._connection.write([pack(command) for pair in commands for command in pair])
        self._come_up_if_confirmed()

    def _receive(self, reply: Reply) -> None:
        if isinstance(reply, ErrorReply):
            if reply.code not in _ELSEWHERE:
                raise reply
            self._refused = True
            return
        kind, name, *rest = (b"pong", reply) if isinstance(reply, bytes) else reply  # bytes while none is subscribed
        if kind == b"smessage":
            self._broker.dispatch(name, rest[0])
        elif kind == b"ssubscribe":
            self._broker.confirm(name)
            self._forget_unconfirmed(name)
        elif kind == b"sunsubscribe":
            self._drop(name)
        elif kind == b"pong":
            self._take_pong(name)

    def _take_pong(self, name: bytes) -> None:
        refused, self._refused = self._refused, False
        if name == _KEEPALIVE:
            self._missed_pings = 0
        elif refused:
            self._drop(name)

    def _drop(self, name: bytes) -> None:
        """Give up a topic that the server does not have, unless it is not wanted any more."""
        if name in self._names:
            self._names.discard(name)
            self._forget_unconfirmed(name)
            self._broker.lose(name, self)

    def _forget_unconfirmed(self, name: bytes) -> None:
        if name in self._unconfirmed:
            self._unconfirmed.discard(name)
            self._come_up_if_confirmed()

    def _come_up_if_confirmed(self) -> None:
        if self._unconfirmed or self._connection is None:
            return
        self.is_connected = True
        if self._lost:
            self._lost = False
            self._shard.count_reconnect()
        log.debug("broker.connected", topics=len(self._names))
