"""Fan-out: the channels of one node, and the sessions that have joined them."""

import asyncio
import time
from collections.abc import Callable, Iterable
from functools import partial
from itertools import islice

import msgspec

from relay.channels.access import Access, Unlist
from relay.channels.local_channel import LocalChannel
from relay.channels.recovery import Recovery
from relay.channels.replay import Replays
from relay.model.close_reason import CloseReason
from relay.model.message import Message
from relay.observability.metrics import Metrics
from relay.redis.batches import NAMES
from relay.redis.broker import Topics
from relay.redis.channel_log import UNKNOWN_FENCE, ChannelLog, parse_live
from relay.redis.clock import RedisClock
from relay.redis.directory import Directory
from relay.redis.keys import Keys
from relay.redis.leases import Holder
from relay.redis.unreadable import Unreadable
from relay.sessions.outbox import Flusher
from relay.sessions.session import Session

UNSUBSCRIBE_AFTER_SECONDS = 5.0
"""The time that a channel stays subscribed after its last session has left: many leave only to come back."""


class ChannelJoin(msgspec.Struct, frozen=True):
    """The start of a session in a channel.

    It receives what follows message `position`. `recovered` answers `since`: whether the log has every message between
    the two.
    """

    position: str
    recovered: bool | None = None
    start_replay: Callable[[], None] | None = None
    """Begins to send the messages that `since` asks for. It is called once the reply to the join is written."""


class FanOut:
    """Delivers every message of a channel to the sessions of this node that have joined it."""

    def __init__(
        self,
        *,
        broker: Topics,
        directory: Directory,
        channel_log: ChannelLog,
        keys: Keys,
        clock: RedisClock,
        flusher: Flusher,
        metrics: Metrics,
        unlist: Unlist,
        unnote: Unlist,
        unreadable: Unreadable,
    ) -> None:
        self._broker = broker
        self._log = channel_log
        self._keys = keys
        self._clock = clock
        self._flusher = flusher
        self._metrics = metrics
        self._unreadable = unreadable
        self._count_deliveries = metrics.deliveries.inc
        self._observe_size = metrics.fanout_size.observe
        self._observe_seconds = metrics.fanout_seconds.observe
        self._observe_age = metrics.delivery_seconds.observe
        self._channels: dict[str, LocalChannel] = {}
        self._connection = 0
        """The number of the connection to Redis."""
        self._idle: dict[str, LocalChannel] = {}
        self._access = Access(directory, unlist, unnote, on_removed=self._check_idle)
        self._recovery = Recovery(self._channels, self._access, channel_log, metrics)
        self._replays = Replays(channel_log, self._access)
        broker.on_resubscribed(self._interrupted)

    def __len__(self) -> int:
        return len(self._channels)

    @property
    def subscriptions(self) -> int:
        """The number of sessions in channels, summed over the channels."""
        return sum(len(channel.subscribers) for channel in self._channels.values())

    async def serve(self) -> None:
        """Read logs, for live delivery and for sessions that come back, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._recovery.serve())
            tasks.create_task(self._replays.serve())

    # --- Sessions join and leave ---

    async def join(
        self, session: Session, channel_id: str, name: str, node: str, *, version: int, since: str | None = None
    ) -> ChannelJoin | None:
        """Deliver a channel to a session from now on. None if the channel was deleted. Raises: StoreUnavailable.

        `version` is the membership version at which the join was allowed. With `since`, everything that follows that
        message comes first, from the call of `start_replay` on; a session that is in the channel already starts again
        there.

        One round trip: the topic is subscribed and the subscriber listed at the same time. A message that is published
        before the topic is subscribed, and after the log's tip was read, is found in the log.
        """
        channel = self._channels.get(channel_id)
        if channel is None:
            channel = LocalChannel(channel_id, name, version, self._flusher, self._on_delivered)
            self._channels[channel_id] = channel
        else:
            channel.confirm_name(name, version)
        subscriber = channel.subscribers.get(session.connection)
        if subscriber is not None and since is None:
            subscriber.joined_at = max(subscriber.joined_at, version)
            return ChannelJoin(channel.position_of(subscriber))
        self._idle.pop(channel_id, None)
        channel.pending_joins += 1
        try:
            _, listing = await asyncio.gather(
                self._broker.subscribe(self._keys.live(channel_id), partial(self._receive, channel)),
                self._log.add_subscriber(
                    channel_id,
                    session.path,
                    Holder(session.connection, node, session.generation),
                    supersedes=session.supersedes,
                    since=since,
                    seen=channel.unconfirmed(self._log.link_to(channel_id)),
                ),
            )
        finally:
            channel.pending_joins -= 1
            self._check_idle(channel)
        if listing is None or channel.deleted:
            return None
        if listing.superseded:
            session.close(CloseReason.SUPERSEDED)
        if session.close_reason is not None:
            return None
        self._idle.pop(channel_id, None)
        subscriber = channel.add_subscriber(
            session, joined_at=version, announced=listing.version, tip=listing.tip, since=since
        )
        subscriber.fence = self._connection, listing.fence
        if subscriber.catch_up is not None:
            self._replays.add(channel, subscriber, subscriber.catch_up)
        self._recovery.schedule(channel)
        if since is None:
            # The channel may have delivered more since the tip was read, which this session does not receive.
            return ChannelJoin(channel.position_of(subscriber))
        return ChannelJoin(listing.tip, listing.recovered, partial(self._replays.start, session))

    def leave(self, session: Session, channel_id: str) -> None:
        """Deliver a channel to a session no more, from the moment of the call."""
        channel = self._channels.get(channel_id)
        if channel is not None:
            channel.remove_subscriber(session)
            self._check_idle(channel)

    def _check_idle(self, channel: LocalChannel) -> None:
        if channel.is_idle:
            channel.idle_since = asyncio.get_running_loop().time()
            self._idle[channel.id] = channel

    async def unsubscribe_idle(self, node: str) -> None:
        """Unsubscribe from the channels to which no session has come back. Raises: StoreUnavailable."""
        while channel_ids := self._unsubscribe_some():
            await self._log.remove_node_channels(node, channel_ids)

    def _unsubscribe_some(self) -> list[str]:
        """Unsubscribe from some of the idle channels, and return their ids. A later join subscribes again."""
        before = asyncio.get_running_loop().time() - UNSUBSCRIBE_AFTER_SECONDS
        idle = (each for each in self._idle.values() if each.is_idle and each.idle_since <= before)
        channel_ids = [channel.id for channel in islice(idle, NAMES)]
        for channel_id in channel_ids:
            del self._idle[channel_id], self._channels[channel_id]
        self._broker.unsubscribe(*map(self._keys.live, channel_ids))
        return channel_ids

    # --- Live messages ---

    def _interrupted(self, topics: Iterable[bytes]) -> None:
        """Have the logs of the channels read whose topics were interrupted."""
        found = (self._channels.get(self._keys.channel_of(topic)) for topic in topics)
        self._recovery.interrupted(channel for channel in found if channel is not None)

    def _receive(self, channel: LocalChannel, data: bytes) -> None:
        """Take a live message, or the announcement of a new version, which has no content.

        What cannot be read is read from the log instead, so it keeps its place in the order.
        """
        message = parse_live(data) if data else None
        if message is None:
            channel.ordering.require_log()
            if data:
                self._unreadable.count("live")
        elif channel.receive(message):
            self._metrics.gaps.inc()
        if channel.needs_recovery:
            self._recovery.schedule(channel)

    def _on_delivered(self, message: Message, sessions: int, began: float) -> None:
        now = time.monotonic()
        self._count_deliveries(sessions)
        self._observe_size(sessions)
        self._observe_seconds(now - began)
        if (age := self._clock.age(message.ts_ms, now)) is not None:
            self._observe_age(age)

    # --- Posts, and the store to which they go ---

    async def reconnected(self) -> None:
        """Take in that commands go over a new connection, perhaps to another server: all logs are compared with it."""
        self._connection += 1
        self._clock.forget()
        self._recovery.interrupted(self._channels.values())

    def post_terms(self, channel_id: str, connection: str) -> tuple[int, str, str | None, int]:
        """Return the `version`, `fence`, `seen` and `not_before` with which a session appends a message now."""
        channel, not_before = self._channels.get(channel_id), self._clock.not_before()
        if channel is None:
            return 0, UNKNOWN_FENCE, None, not_before
        seen = channel.unconfirmed(self._log.link_to(channel_id))
        return channel.version, self._fence(channel, connection), seen, not_before

    def _fence(self, channel: LocalChannel, connection: str) -> str:
        """Return the fence with which a session was listed. Another server may have lost the listing."""
        subscriber = channel.subscribers.get(connection)
        if subscriber is None or subscriber.fence is None or subscriber.fence[0] != self._connection:
            return UNKNOWN_FENCE
        return subscriber.fence[1]

    def applied_terms(self, channel_id: str, connection: str) -> tuple[int, str]:
        """Return the `version` and the `fence` of `post_terms`."""
        channel = self._channels.get(channel_id)
        return (0, UNKNOWN_FENCE) if channel is None else (channel.version, self._fence(channel, connection))

    def confirm_listing(self, channel_id: str, connection: str, fence: str) -> None:
        """Take the fence of a channel in which a session of this node is listed."""
        channel = self._channels.get(channel_id)
        subscriber = None if channel is None else channel.subscribers.get(connection)
        if subscriber is not None:
            subscriber.fence = self._connection, fence

    def acknowledge(self, channel_id: str, message_id: str, ms: int) -> None:
        """Note the id of a message that was posted here, and the id's milliseconds: its loss would be one."""
        channel = self._channels.get(channel_id)
        if channel is not None:
            channel.acknowledge(message_id, ms)

    # --- Membership versions ---

    def applied_version(self, channel_id: str) -> int:
        """Return the version that this node has applied to a channel."""
        channel = self._channels.get(channel_id)
        return 0 if channel is None else channel.version

    async def apply_version(self, channel_id: str, version: int) -> None:
        """Apply a version, unless it was applied. Raises: StoreUnavailable."""
        channel = self._channels.get(channel_id)
        if channel is not None:
            await self._access.apply(channel, version)

    async def apply_latest_version(self, channel_id: str) -> None:
        """Apply the version that was announced last. Raises: StoreUnavailable."""
        if channel_id in self._channels:
            await self.apply_version(channel_id, await self._log.version(channel_id))
