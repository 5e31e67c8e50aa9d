"""One channel as this node delivers it: who listens here, what comes next, who has to be looked at again. No I/O."""

import asyncio
import time
from collections.abc import Callable, Sequence

from relay.channels.catch_up import CatchUp, Lost
from relay.channels.ordering import Ordering
from relay.model.message import Message, order
from relay.observability import tracing
from relay.sessions.session import Session


class Subscriber:
    """A session in a channel.

    `joined` is the version of who may hear the channel at which the session was let in, `reviewed` the last one at
    which it was found that it may stay. It hears what comes after message `floor`; while it has a `catch_up`, it hears
    what that hands out, and nothing else.
    """

    __slots__ = ("catch_up", "floor", "joined", "reviewed", "session")

    def __init__(self, session: Session, *, joined: int, floor: str) -> None:
        self.session = session
        self.joined = self.reviewed = joined
        self.floor = floor
        self.catch_up: CatchUp | None = None


Delivered = Callable[[Message, int, float], None]
"""Told of every message that went out: the message, to how many sessions, and since when, by `time.monotonic`."""


class LocalChannel:
    """The sessions of this node that have joined a channel, and the channel's order."""

    def __init__(self, channel_id: str, name: str, named: int, delivered: Delivered) -> None:
        """`named` is the version at which the channel had this name."""
        self.id = channel_id
        self.name = name
        self.named = named
        self.gone = False
        """Whether the channel was deleted."""
        self.interrupted = False
        """Whether live delivery was away, and the log has not been looked at since."""
        self.feed = Ordering()
        self.listeners: dict[str, Subscriber] = {}
        self.started = False
        self.version = 0
        """The version of who may hear the channel that every listener was reviewed for."""
        self.reviewing = asyncio.Lock()
        self.refilling = False
        self.joining = 0
        self.idle_since = 0.0
        self._floor: str | None = None
        self._delivered = delivered

    @property
    def unused(self) -> bool:
        return not self.listeners and not self.joining

    def admit(self, session: Session, *, joined: int, present: int, tip: str, since: str | None = None) -> Subscriber:
        """Let a session in that may hear what comes after message `tip`, or, by and by, all that followed `since`.

        `joined` is the version at which it was found that it may, `present` the one that was announced when it came in.
        If the two differ, something changed meanwhile, perhaps against the session: nothing is handed out before it was
        reviewed.
        """
        listener = self.listeners[session.connection] = Subscriber(session, joined=joined, floor=tip)
        self._raise_floor(listener, tip)
        if not self.started:
            self.started = True
            self.version = joined
            self.feed.start(tip)
        elif max(present, self.version) > joined:
            self.version = min(self.version, joined)
            self.feed.doubt()
        if since is not None:
            listener.catch_up = CatchUp(since, self.feed.position, tip)
        return listener

    def position(self, listener: Subscriber) -> str:
        """Return the message after which a listener hears everything from now on."""
        if listener.catch_up is not None:
            return listener.catch_up.position
        return max(listener.floor, self.feed.position, key=order)

    def is_catching_up(self, listener: Subscriber, catch_up: CatchUp) -> bool:
        """Whether a listener is still here, with this catch-up, and is to hear anything at all."""
        return (
            self.listeners.get(listener.session.connection) is listener
            and listener.catch_up is catch_up
            and listener.session.close_reason is None
        )

    def catch_up(self, listener: Subscriber, steps: Sequence[Message | Lost]) -> None:
        """Hand to one listener what its catch-up handed out; if that is the end of it, the listener is live."""
        session, catch_up = listener.session, listener.catch_up
        for step in steps:
            if isinstance(step, Lost):
                session.tell(session.encoder.gap(self.name, step.after))
            elif session.path_text != step.sender:
                session.tell(session.encoder.message(self.name, step))
        if catch_up is not None and catch_up.done:
            listener.catch_up = None
            self._raise_floor(listener, catch_up.position)

    def _raise_floor(self, listener: Subscriber, floor: str) -> None:
        listener.floor = floor
        if self._floor is None or order(floor) > order(self._floor):
            self._floor = floor

    def dismiss(self, session: Session) -> None:
        self.listeners.pop(session.connection, None)

    def behind(self, version: int) -> list[Subscriber]:
        """Return the listeners that were not reviewed for this version."""
        return [listener for listener in self.listeners.values() if listener.reviewed < version]

    def live(self, message: Message) -> bool:
        """Take a live message and deliver what is next in order.

        Returns whether this message tells that one before it is missing.
        """
        if message.version > self.version:
            self.feed.suspend(message)
            return False
        was_live = self.feed.is_live
        if due := self.feed.live(message):
            self.deliver(due)
            return False
        return was_live and not self.feed.is_live

    def deliver(self, messages: Sequence[Message]) -> None:
        """Put messages into the outboxes of all listeners but their senders'. Each is encoded once per dialect."""
        for message in tracing.delivered(messages, self.id, len(self.listeners)):
            began, passed_over = time.monotonic(), 0
            newcomers = self._floor is not None and order(message.id) <= order(self._floor)
            if not newcomers:
                self._floor = None
            frames: dict[object, bytes] = {}
            for listener in self.listeners.values():
                session = listener.session
                if listener.catch_up is not None:
                    listener.catch_up.live(message)
                    passed_over += 1
                    continue
                if session.path_text == message.sender:
                    passed_over += 1
                    continue
                if newcomers and order(message.id) <= order(listener.floor):
                    passed_over += 1
                    continue
                frame = frames.get(session.encoder)
                if frame is None:
                    frame = frames[session.encoder] = session.encoder.message(self.name, message)
                session.outbox.push(frame)
            if reached := len(self.listeners) - passed_over:
                self._delivered(message, reached, began)

    def tell_lost(self, after: str, until: str) -> None:
        """Tell the listeners that what followed message `after`, and came before `until`, is lost.

        Whoever is to hear only what follows `until` has lost nothing; whoever catches up finds that out alone. If
        `until` does not come later, nobody knows how far the hole goes.
        """
        for listener in self.listeners.values():
            spared = order(after) < order(until) <= order(listener.floor)
            if listener.catch_up is None and not spared:
                session = listener.session
                session.tell(session.encoder.gap(self.name, max(after, listener.floor, key=order)))

    def rename(self, name: str, named: int) -> bool:
        """Take the name that the channel had at version `named`; returns whether that is news.

        Every listener goes on under it, also one that came in by a name that the channel had before; each is told of
        the name by which it knows the channel.
        """
        if named < self.named:
            return False
        self.named = named
        old, self.name = self.name, name
        for listener in self.listeners.values():
            session = listener.session
            if session.joined.get(name) != self.id:
                known = session.forget(self.id)
                session.joined[name] = self.id
                for former in known:
                    session.tell(session.encoder.renamed(former, name))
        return old != name
