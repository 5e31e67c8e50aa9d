"""Fan-out: from a channel's live topic, or its log where live delivery lost something, to every session that joined."""

import asyncio
import contextlib
import time
from functools import partial

import msgspec
import structlog

from relay.channels.local_channel import LocalChannel, Subscriber
from relay.channels.replay import Replays
from relay.model.errors import StoreUnavailable
from relay.model.message import Message, order
from relay.observability.metrics import Metrics
from relay.redis.broker import Broker
from relay.redis.channel_log import DELETED, ChannelLog, parse_live
from relay.redis.clock import RedisClock
from relay.redis.directory import Directory
from relay.redis.keys import Keys
from relay.sessions.session import Session

log = structlog.get_logger()

LINGER_SECONDS = 5.0
"""How long a channel stays subscribed after its last session left: many leave only to come back."""
_REFILL_ROWS, _REFILL_BYTES = 500, 1024 * 1024
_REFILLS_AT_ONCE = 16
_REFILL_RETRY_SECONDS = 0.2
_REVIEW_SESSIONS = 500
_COMPARE_SECONDS = 5.0


class ChannelJoin(msgspec.Struct, frozen=True):
    """How a session came into a channel.

    It hears what follows message `position`. `recovered` answers `since`: whether all that was said between the two is
    in the log.
    """

    position: str
    recovered: bool | None = None


class FanOut:
    """The channels of one node and who listens to them."""

    def __init__(
        self,
        *,
        broker: Broker,
        directory: Directory,
        channel_log: ChannelLog,
        keys: Keys,
        clock: RedisClock,
        metrics: Metrics,
    ) -> None:
        self._broker = broker
        self._directory = directory
        self._log = channel_log
        self._keys = keys
        self._clock = clock
        self._metrics = metrics
        self._count = metrics.deliveries.inc
        self._observe_size = metrics.fanout_size.observe
        self._observe_seconds = metrics.fanout_seconds.observe
        self._observe_age = metrics.delivery_seconds.observe
        self._rooms: dict[str, LocalChannel] = {}
        self._idle: dict[str, LocalChannel] = {}
        self._replays = Replays(channel_log, self._review)
        self._doubtful: asyncio.Queue[LocalChannel] = asyncio.Queue()
        broker.on_resubscribed(self._on_resubscribed)

    def __len__(self) -> int:
        return len(self._rooms)

    @property
    def subscriptions(self) -> int:
        """How many sessions listen, summed over channels."""
        return sum(len(room.listeners) for room in self._rooms.values())

    # --- Coming and going ---

    async def join(
        self, session: Session, channel_id: str, name: str, node: str, *, version: int, since: str | None = None
    ) -> ChannelJoin | None:
        """Deliver a channel to a session from now on. None if the channel was deleted. Raises: StoreUnavailable.

        `version` is that of who may hear the channel when the session was let in. With `since`, all that followed that
        message comes first, from `resume` on; a session that hears the channel already begins anew there.

        One round trip: the subscription of the topic and the entry among the subscribers travel at the same time. What
        is published before the topic is subscribed, but after the log's tip was read, is found in the log.
        """
        room = self._rooms.get(channel_id)
        if room is None:
            room = self._rooms[channel_id] = LocalChannel(channel_id, name, version, self._delivered)
        else:
            room.rename(name, version)
        if (listener := room.listeners.get(session.connection)) is not None and since is None:
            listener.joined = max(listener.joined, version)  # what was done to it before this is forgiven
            return ChannelJoin(room.position(listener))
        self._idle.pop(channel_id, None)
        room.joining += 1
        session.listed_in.add(channel_id)
        try:
            _, entered = await asyncio.gather(
                self._broker.subscribe(self._keys.live(channel_id), partial(self._receive, room)),
                self._log.add_subscriber(channel_id, session.path, node, session.connection, since=since),
            )
        finally:
            room.joining -= 1
            self._mark_idle(room)
        if entered is None or room.gone or session.close_reason is not None:
            return None
        self._idle.pop(channel_id, None)
        tip, present, known = entered
        listener = room.admit(session, joined=version, present=present, tip=tip, since=since)
        if listener.catch_up is not None:
            self._replays.prepare(room, listener, listener.catch_up)
        self._check(room)
        if since is None:
            # Live delivery may have handed out more since the tip was read: that is not for this session any more.
            return ChannelJoin(room.position(listener))
        return ChannelJoin(tip, known)

    def resume(self, session: Session) -> None:
        """Begin to send what `subscribe` has promised: the answer to it is on its way."""
        self._replays.resume(session)

    def leave(self, session: Session, channel_id: str) -> None:
        """Stop delivering a channel to a session, at once."""
        room = self._rooms.get(channel_id)
        if room is not None:
            room.dismiss(session)
            self._mark_idle(room)

    def _mark_idle(self, room: LocalChannel) -> None:
        if room.unused:
            room.idle_since = asyncio.get_running_loop().time()
            self._idle[room.id] = room

    async def unsubscribe_idle(self, node: str) -> None:
        """Let go of the channels that nobody has come back to. Raises: StoreUnavailable."""
        now = asyncio.get_running_loop().time()
        for room in list(self._idle.values()):
            if self._idle.get(room.id) is not room:
                continue  # while another one was let go of, somebody came, or another sweep was quicker
            if room.unused and now - room.idle_since >= LINGER_SECONDS:
                del self._idle[room.id], self._rooms[room.id]
                await self._broker.unsubscribe(self._keys.live(room.id))
                await self._log.remove_node_channel(node, room.id)
                if room.id in self._rooms:  # somebody came meanwhile
                    await self._log.add_node_channel(node, room.id)

    # --- Delivery: called by the broker; nothing here awaits ---

    def _receive(self, room: LocalChannel, data: bytes) -> None:
        """Take a live message, or the announcement of a new version, which is empty."""
        if data:
            if room.live(parse_live(data)):
                self._metrics.gaps.inc()
        else:
            room.feed.doubt()
        self._check(room)

    def _on_resubscribed(self) -> None:
        """Have every channel's log read: live messages may have been lost."""
        for room in self._rooms.values():
            room.interrupted = room.interrupted or (room.started and room.feed.is_live)
            room.feed.doubt()
            self._check(room)

    def _check(self, room: LocalChannel) -> None:
        if room.started and not room.feed.is_live and not room.refilling:
            room.refilling = True
            self._doubtful.put_nowait(room)

    def _delivered(self, message: Message, sessions: int, began: float) -> None:
        now = time.monotonic()
        self._count(sessions)
        self._observe_size(sessions)
        self._observe_seconds(now - began)
        if (age := self._clock.age(message.ts_ms, now)) is not None:
            self._observe_age(age)

    # --- Recovery ---

    async def serve(self) -> None:
        """Read logs where live delivery lost something, until cancelled."""
        async with asyncio.TaskGroup() as readers:
            readers.create_task(self._replays.serve())
            readers.create_task(self._compare())
            for _ in range(_REFILLS_AT_ONCE):
                readers.create_task(self._refill_doubtful())

    async def _compare(self) -> None:
        """Look for channels whose last messages were lost and have no successor that would tell.

        A replica that had to be copied anew does not say what was published meanwhile, and keeps its connections.
        """
        while True:
            rooms = [room for room in self._rooms.values() if room.started]
            marks = await self._log.delivered_tips([room.id for room in rooms])
            await asyncio.sleep(_COMPARE_SECONDS)
            for room, mark in zip(rooms, marks, strict=False):
                news = mark.version > room.version or (mark.version == DELETED and not room.gone)
                if room.feed.is_live and (news or order(room.feed.position) < order(mark.tip)):
                    log.warning("channel.silent", channel=room.id, after=room.feed.position, tip=mark.tip)
                    room.feed.doubt()
                    self._check(room)

    async def _refill_doubtful(self) -> None:
        while True:
            room = await self._doubtful.get()
            try:
                await self._refill(room)
            finally:
                room.refilling = False

    async def _refill(self, room: LocalChannel) -> None:
        """Read the log from the feed's position on until the feed is live again, or the channel is let go."""
        while not room.feed.is_live and self._rooms.get(room.id) is room:
            before = room.feed.position
            try:
                page = await self._log.page(room.id, before, rows=_REFILL_ROWS, size=_REFILL_BYTES)
                await self._review(room, page.version)
            except StoreUnavailable:
                await asyncio.sleep(_REFILL_RETRY_SECONDS)
                continue
            missed, room.interrupted = room.interrupted, False
            messages, lost = room.feed.page(page.rows, more=page.more, known=page.known, tip=page.tip)
            if missed and (page.rows or lost):
                self._metrics.gaps.inc()
            if lost and page.version != DELETED:
                self._metrics.lost.inc()
                log.error("channel.history_lost", channel=room.id, after=before, tip=page.tip)
            if page.rows:
                self._metrics.refilled.inc(len(page.rows))
                log.info("channel.refilled", channel=room.id, messages=len(page.rows))
            # A page that is not known to continue has its hole before it; else the hole is behind the page.
            before_hole = len(page.rows) if page.known else 0
            room.deliver(messages[:before_hole])
            if lost and page.version != DELETED:
                after = messages[before_hole - 1].id if before_hole else before
                room.tell_lost(after, messages[before_hole].id if before_hole < len(messages) else page.tip)
            room.deliver(messages[before_hole:])

    # --- Who may hear it ---

    def applied_version(self, channel_id: str) -> int:
        """Return the version of who may hear a channel that this node has applied."""
        room = self._rooms.get(channel_id)
        return 0 if room is None else room.version

    async def apply_version(self, channel_id: str, version: int) -> None:
        """Apply a version, if it was not: take the channel from those who lost it. Raises: StoreUnavailable."""
        room = self._rooms.get(channel_id)
        if room is not None:
            await self._review(room, version)

    async def apply_latest_version(self, channel_id: str) -> None:
        """Apply the version that was announced last. Raises: StoreUnavailable."""
        if channel_id in self._rooms:
            await self.apply_version(channel_id, await self._log.version(channel_id))

    async def _review(self, room: LocalChannel, version: int) -> None:
        async with room.reviewing:
            if version == DELETED:
                room.gone = True
                for listener in list(room.listeners.values()):
                    await self._dismiss(room, listener, "deleted")
                return
            if version <= room.version:
                return
            while behind := room.behind(version)[:_REVIEW_SESSIONS]:
                await self._ask(room, behind, version)
            room.version = version

    async def _ask(self, room: LocalChannel, listeners: list[Subscriber], version: int) -> None:
        rows = [(each.session.path_text, each.session.pubkey, each.joined) for each in listeners]
        verdict = await self._directory.review(room.id, rows)
        name, named, reasons = verdict or (room.name, room.named, ["deleted"] * len(listeners))
        if room.rename(name, named):
            log.info("channel.renamed", channel=room.id)
        for listener, (_, _, joined), reason in zip(listeners, rows, reasons, strict=True):
            if listener.joined != joined:
                continue  # it has come in anew meanwhile: that is another question
            listener.reviewed = version
            if reason:
                await self._dismiss(room, listener, reason)

    async def _dismiss(self, room: LocalChannel, listener: Subscriber, reason: str) -> None:
        """Take the channel from a session, unless it has left, or come in anew, by itself."""
        session = listener.session
        if room.listeners.get(session.connection) is not listener:
            return
        self.leave(session, room.id)
        session.forget(room.id)
        session.tell(session.encoder.left(room.name, reason))
        log.info("session.lost_channel", path=session.path_text, channel=room.id, reason=reason)
        with contextlib.suppress(StoreUnavailable):  # the session's end says it again
            await self._log.remove_subscriber(room.id, session.connection)
            session.listed_in.discard(room.id)
