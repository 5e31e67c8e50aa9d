"""Fan-out: from a channel's live topic, or its log where live delivery lost something, to every session that joined."""

import asyncio
from collections.abc import Sequence

import structlog

from relay.errors import StoreUnavailable
from relay.feed import Feed
from relay.message import Message, order
from relay.metrics import Metrics
from relay.redis.broker import Broker
from relay.redis.channel_log import ChannelLog, parse_live
from relay.redis.keys import Keys
from relay.session import Session

log = structlog.get_logger()

LINGER_SECONDS = 5.0
"""How long a channel stays subscribed after its last session left: many leave only to come back."""
_REFILL_ROWS, _REFILL_BYTES = 500, 1024 * 1024
_REFILLS_AT_ONCE = 16
_REFILL_RETRY_SECONDS = 0.2


class _Channel:
    """A channel that this node delivers."""

    def __init__(self, channel_id: str, name: str) -> None:
        self.id = channel_id
        self.name = name
        self.feed = Feed()
        self.started = False
        self.sessions: dict[str, Session] = {}
        self.joining = 0
        self.idle_since: float | None = None
        self.refilling = False
        self.floors: dict[str, str] = {}
        """Where sessions came in that may see older messages pass by: connection -> last id before it joined."""

    @property
    def unused(self) -> bool:
        return not self.sessions and not self.joining


class FanOut:
    """The channels of one node and who listens to them."""

    def __init__(self, *, broker: Broker, channel_log: ChannelLog, keys: Keys, metrics: Metrics) -> None:
        self._broker = broker
        self._log = channel_log
        self._keys = keys
        self._metrics = metrics
        self._channels: dict[str, _Channel] = {}
        self._by_topic: dict[str, _Channel] = {}
        self._idle: dict[str, _Channel] = {}
        self._doubtful: asyncio.Queue[_Channel] = asyncio.Queue()

    def __len__(self) -> int:
        return len(self._channels)

    async def subscribe(self, session: Session, channel_id: str, name: str, node: str) -> bool:
        """Deliver a channel to a session from now on. False if the channel was deleted. Raises: StoreUnavailable.

        One round trip: the subscription of the topic and the entry among the subscribers travel at the same time. What
        is published before the topic is subscribed, but after the log's tip was read, is found in the log.
        """
        channel = self._channels.get(channel_id)
        if channel is None:
            channel = self._channels[channel_id] = _Channel(channel_id, name)
            self._by_topic[self._keys.live(channel_id)] = channel
        elif session.connection in channel.sessions:
            return True
        self._idle.pop(channel_id, None)
        channel.joining += 1
        session.entered.add(channel_id)
        try:
            _, tip = await asyncio.gather(
                self._broker.subscribe(self._keys.live(channel_id)),
                self._log.enter(channel_id, session.path, node, session.connection),
            )
        finally:
            channel.joining -= 1
            self._mark_idle(channel)
        if tip is None or session.close_reason is not None:
            return False
        self._idle.pop(channel_id, None)
        channel.sessions[session.connection] = session
        channel.floors[session.connection] = tip
        if not channel.started:
            channel.started = True
            channel.feed.start(tip)
            self._check(channel)
        return True

    def unsubscribe(self, session: Session, channel_id: str) -> None:
        """Stop delivering a channel to a session, at once."""
        channel = self._channels.get(channel_id)
        if channel is not None:
            channel.sessions.pop(session.connection, None)
            channel.floors.pop(session.connection, None)
            self._mark_idle(channel)

    def _mark_idle(self, channel: _Channel) -> None:
        if channel.unused:
            channel.idle_since = asyncio.get_running_loop().time()
            self._idle[channel.id] = channel

    async def sweep(self, node: str) -> None:
        """Let go of the channels that nobody has come back to. Raises: StoreUnavailable."""
        now = asyncio.get_running_loop().time()
        for channel in list(self._idle.values()):
            if channel.unused and now - (channel.idle_since or now) >= LINGER_SECONDS:
                del self._idle[channel.id], self._channels[channel.id], self._by_topic[self._keys.live(channel.id)]
                await self._broker.unsubscribe(self._keys.live(channel.id))
                await self._log.forget_channel(node, channel.id)
                if channel.id in self._channels:  # somebody came meanwhile
                    await self._log.note_channel(node, channel.id)

    # --- Delivery: called by the broker; nothing here awaits ---

    def heard(self, topic: str, data: bytes) -> None:
        """Take a live message."""
        channel = self._by_topic.get(topic)
        if channel is not None:
            self._deliver(channel, channel.feed.live(parse_live(data)))
            self._check(channel)

    def caught_up(self) -> None:
        """Live delivery is back after an interruption: every channel's log has to be looked at."""
        for channel in self._channels.values():
            channel.feed.doubt()
            self._check(channel)

    def _deliver(self, channel: _Channel, messages: Sequence[Message]) -> None:
        for message in messages:
            floors = self._floors(channel, message)
            frames: dict[object, bytes] = {}
            for connection, session in channel.sessions.items():
                if session.path_text == message.sender:
                    continue
                if floors and connection in floors and order(message.id) <= order(floors[connection]):
                    continue
                frame = frames.get(session.dialect)
                if frame is None:
                    frame = frames[session.dialect] = session.dialect.message(channel.name, message)
                session.outbox.push(frame)

    @staticmethod
    def _floors(channel: _Channel, message: Message) -> dict[str, str] | None:
        """Return where sessions came in, as long as that matters: a message beyond all floors ends it."""
        if not channel.floors:
            return None
        if all(order(message.id) > order(floor) for floor in channel.floors.values()):
            channel.floors.clear()
            return None
        return channel.floors

    # --- Recovery ---

    def _check(self, channel: _Channel) -> None:
        if channel.started and not channel.feed.is_live and not channel.refilling:
            channel.refilling = True
            self._doubtful.put_nowait(channel)

    async def serve(self) -> None:
        """Read logs where live delivery lost something, until cancelled."""
        async with asyncio.TaskGroup() as readers:
            for _ in range(_REFILLS_AT_ONCE):
                readers.create_task(self._refill_doubtful())

    async def _refill_doubtful(self) -> None:
        while True:
            await self._refill(await self._doubtful.get())

    async def _refill(self, channel: _Channel) -> None:
        """Read the log from the feed's position on until the feed is live again, or the channel is let go."""
        try:
            while not channel.feed.is_live and self._channels.get(channel.id) is channel:
                try:
                    page = await self._log.page(
                        channel.id, channel.feed.position, rows=_REFILL_ROWS, size=_REFILL_BYTES
                    )
                except StoreUnavailable:
                    await asyncio.sleep(_REFILL_RETRY_SECONDS)
                    continue
                before = channel.feed.position
                messages, lost = channel.feed.page(page.rows, more=page.more, known=page.known, tip=page.tip)
                if lost:
                    self._metrics.lost.inc()
                    log.error("channel.history_lost", channel=channel.id, after=before, tip=page.tip)
                if page.rows:
                    self._metrics.refilled.inc(len(page.rows))
                    log.info("channel.refilled", channel=channel.id, messages=len(page.rows))
                self._deliver(channel, messages)
        finally:
            channel.refilling = False
