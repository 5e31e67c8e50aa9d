"""One channel as this node delivers it: its subscribers, its order, and the version that was applied. No I/O."""

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence

from relay.channels.catch_up import CatchUp, Gap
from relay.channels.ordering import Ordering
from relay.channels.recipients import Recipients, Subscriber
from relay.channels.replayed_frames import ReplayedFrames
from relay.model.message import START, Message, order
from relay.observability import tracing
from relay.redis.channel_log import Hole
from relay.sessions.outbox import Flusher
from relay.sessions.session import Session

OnDelivered = Callable[[Message, int, float], None]
"""Called after each delivery with the message, the number of sessions, and the `time.monotonic` of its beginning."""


class LocalChannel:
    """The subscribers of this node in a channel, and the order in which they receive its messages."""

    def __init__(
        self, channel_id: str, name: str, name_version: int, flusher: Flusher, on_delivered: OnDelivered
    ) -> None:
        """`name_version` is the version at which the channel had this name."""
        self.id = channel_id
        self.name = name
        self.name_version = name_version
        self.version = 0
        """The membership version that was applied to every subscriber."""
        self.deleted = False
        self.ordering = Ordering()
        self.subscribers: dict[str, Subscriber] = {}
        """By connection."""
        self.started = False
        """True once a session has joined: before that there is no position to deliver from."""
        self.pending_joins = 0
        self.idle_since = 0.0
        self.interrupted = False
        """True if the subscriber connection was lost since the log was last read."""
        self.recovering = False
        """True while the log is being read, or is going to be."""
        self.confirmed_by: object | None = None
        """The connection over which the log had, or had recorded as lost, all that this node had seen."""
        self._acknowledged, self._acknowledged_ms = START, 0
        self._last_hole: str | None = None
        """The last message of the last hole that the subscribers were told of, or have received."""
        self.reviewing = asyncio.Lock()
        """Held while a version is applied."""
        self._recipients = Recipients(flusher)
        self._on_delivered = on_delivered

    @property
    def is_idle(self) -> bool:
        """True while no session is in the channel or about to be."""
        return not self.subscribers and not self.pending_joins

    @property
    def needs_recovery(self) -> bool:
        """True while the log has to be read and no reader was asked to."""
        return self.started and not self.ordering.is_live and not self.recovering

    @property
    def last_seen(self) -> str:
        """The id of the last message of the log that this node has delivered, holds, or got as the reply to a post."""
        return max(self.ordering.last_seen, self._acknowledged, key=order)

    def unconfirmed(self, link: object | None) -> str | None:
        """Return the last seen message, unless the log behind this connection is known to account for it."""
        return None if link is self.confirmed_by or not self.started else self.last_seen

    def acknowledge(self, message_id: str, ms: int) -> None:
        """Note the id of a message that this node has posted, and the id's milliseconds."""
        if ms > self._acknowledged_ms or order(message_id) > order(self._acknowledged):
            self._acknowledged, self._acknowledged_ms = message_id, ms

    def interrupt(self) -> None:
        """Have the log read, and compared with what this node has seen: another server may be there."""
        self.interrupted = self.interrupted or (self.started and self.ordering.is_live)
        self.ordering.require_log()

    def add_subscriber(
        self, session: Session, *, joined_at: int, announced: int, tip: str, since: str | None = None
    ) -> Subscriber:
        """Add a session that receives what follows message `tip`, or, through a catch-up, what follows `since`.

        `joined_at` is the version at which the join was allowed, `announced` that of the channel when the session was
        listed. If they differ, the session may have lost its right meanwhile, and nothing is delivered before it was
        reviewed.
        """
        self.remove_subscriber(session)
        subscriber = Subscriber(session, joined_at=joined_at, after=tip, since=since)
        self.subscribers[session.connection] = subscriber
        if not self.started:
            self.started = True
            self.version = joined_at
            self.ordering.start(tip)
        elif max(announced, self.version) > joined_at:
            self.version = min(self.version, joined_at)
            self.ordering.require_log()
        if since is not None:
            subscriber.catch_up = CatchUp(since, self.ordering.position, tip)
        self._recipients.add(subscriber, self.ordering.position)
        return subscriber

    def remove_subscriber(self, session: Session) -> None:
        self.subscribers.pop(session.connection, None)
        self._recipients.remove(session)

    def position_of(self, subscriber: Subscriber) -> str:
        """Return the message after which a subscriber receives everything from now on."""
        if subscriber.catch_up is not None:
            return subscriber.catch_up.position
        return max(subscriber.after, self.ordering.position, key=order)

    def unreviewed(self, version: int) -> list[Subscriber]:
        """Return the subscribers that were not reviewed for this version."""
        return [each for each in self.subscribers.values() if each.reviewed_at < version]

    def receive(self, message: Message) -> bool:
        """Take a live message and deliver what is next in order.

        Returns whether it shows that messages before it were lost on the way.
        """
        if message.version > self.version:
            self.ordering.hold(message)
            return False
        was_live = self.ordering.is_live
        if ready := self.ordering.receive(message):
            self.deliver(ready)
            return False
        return was_live and not self.ordering.is_live

    def deliver(self, messages: Iterable[Message]) -> None:
        """Put messages into the outboxes of all subscribers but their senders. Each is encoded once per version."""
        if tracing.recording:
            messages = tracing.delivered(messages, self.id, len(self.subscribers))
        for message in messages:
            began = time.monotonic()
            if message.sender and (sessions := self._recipients.deliver(self.name, message)):
                self._on_delivered(message, sessions, began)

    def deliver_gap(self, after: str, until: str) -> None:
        """Tell the subscribers that the messages after `after` and before `until` are lost.

        A subscriber that starts at `until` or later has lost nothing, and one that catches up finds the gap on its own.
        If `until` is not later than `after`, the end of the gap is not known.
        """
        for subscriber in self.subscribers.values():
            starts_later = order(after) < order(until) <= order(subscriber.after)
            if subscriber.catch_up is None and not starts_later:
                session = subscriber.session
                session.send_event(session.encoder.gap(self.name, max(after, subscriber.after, key=order)))

    def note_hole(self, hole: Hole, before: str) -> bool:
        """Note the last hole of the log after a page from `before` on; tell the subscribers if it was found too late.

        A hole is found late if messages behind it were delivered before it was recorded. Returns whether that is so.
        """
        if self._last_hole is not None and order(hole.last) <= order(self._last_hole):
            return False
        is_first, is_late = self._last_hole is None, order(before) > order(hole.last)
        if is_late or order(self.ordering.position) >= order(hole.last):
            self._last_hole = hole.last
        if is_first or not is_late:
            return False
        for subscriber in self.subscribers.values():
            if order(subscriber.begin) < order(hole.last) < order(self.position_of(subscriber)):
                session = subscriber.session
                session.send_event(session.encoder.gap(self.name, max(hole.after, subscriber.begin, key=order)))
        return True

    def is_catching_up(self, subscriber: Subscriber, catch_up: CatchUp) -> bool:
        """Tell whether a subscriber is still in the channel, with this catch-up, and its session stays open."""
        return (
            self.subscribers.get(subscriber.session.connection) is subscriber
            and subscriber.catch_up is catch_up
            and subscriber.session.close_reason is None
        )

    def deliver_catch_up(self, subscriber: Subscriber, steps: Sequence[Message | Gap], frames: ReplayedFrames) -> None:
        """Send one subscriber what its catch-up has put out. After the last of it the subscriber is live."""
        session, catch_up = subscriber.session, subscriber.catch_up
        for step in steps:
            if isinstance(step, Gap):
                session.send_event(session.encoder.gap(self.name, step.after))
            elif step.sender not in ("", session.path_text):
                session.send_event(frames.frame(session.encoder, self.name, step))
        if catch_up is not None and catch_up.done:
            subscriber.catch_up = None
            subscriber.after = catch_up.position
            self._recipients.add(subscriber, self.ordering.position)

    def confirm_name(self, name: str, version: int) -> None:
        """Take the name by which a session joins at `version`. Only another name has to reach the other sessions."""
        if name == self.name:
            self.name_version = max(self.name_version, version)
        else:
            self.rename(name, version)

    def rename(self, name: str, version: int) -> bool:
        """Take the name that the channel had at `version`. Returns whether the name has changed.

        A later name that is known already stays. Every session goes on under the new name, also one that joined by an
        earlier one, and is told which of the names that it knows has changed.
        """
        if version < self.name_version:
            return False
        self.name_version = version
        old, self.name = self.name, name
        for subscriber in self.subscribers.values():
            session = subscriber.session
            if session.joined.get(name) != self.id:
                former_names = session.forget_channel(self.id)
                session.joined[name] = self.id
                for former in former_names:
                    session.send_event(session.encoder.renamed(former, name))
        return old != name
