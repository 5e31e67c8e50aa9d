"""One channel as this node delivers it: who listens here, what comes next, who has to be looked at again. No I/O."""

import asyncio
from collections.abc import Sequence

from relay.feed import Feed
from relay.message import Message, order
from relay.session import Session


class Listener:
    """A session in a channel.

    `joined` is the version of who may hear the channel at which the session was let in, `reviewed` the last one at
    which it was found that it may stay. It hears what comes after message `floor`.
    """

    __slots__ = ("floor", "joined", "reviewed", "session")

    def __init__(self, session: Session, *, joined: int, floor: str) -> None:
        self.session = session
        self.joined = self.reviewed = joined
        self.floor = floor


class Room:
    """The sessions of this node that have joined a channel, and the channel's order."""

    def __init__(self, channel_id: str, name: str, named: int) -> None:
        """`named` is the version at which the channel had this name."""
        self.id = channel_id
        self.name = name
        self.named = named
        self.gone = False
        """Whether the channel was deleted."""
        self.feed = Feed()
        self.listeners: dict[str, Listener] = {}
        self.started = False
        self.version = 0
        """The version of who may hear the channel that every listener was reviewed for."""
        self.reviewing = asyncio.Lock()
        self.refilling = False
        self.joining = 0
        self.idle_since = 0.0
        self._floor: str | None = None

    @property
    def unused(self) -> bool:
        return not self.listeners and not self.joining

    def admit(self, session: Session, *, joined: int, present: int, tip: str) -> None:
        """Let a session in that may hear what comes after message `tip`.

        `joined` is the version at which it was found that it may, `present` the one that was announced when it came in.
        If the two differ, something changed meanwhile, perhaps against the session: nothing is handed out before it was
        reviewed.
        """
        self.listeners[session.connection] = Listener(session, joined=joined, floor=tip)
        if self._floor is None or order(tip) > order(self._floor):
            self._floor = tip
        if not self.started:
            self.started = True
            self.version = joined
            self.feed.start(tip)
        elif max(present, self.version) > joined:
            self.version = min(self.version, joined)
            self.feed.doubt()

    def dismiss(self, session: Session) -> None:
        self.listeners.pop(session.connection, None)

    def behind(self, version: int) -> list[Listener]:
        """Return the listeners that were not reviewed for this version."""
        return [listener for listener in self.listeners.values() if listener.reviewed < version]

    def live(self, message: Message) -> None:
        """Take a live message and deliver what is next in order."""
        if message.version > self.version:
            self.feed.suspend(message)
        else:
            self.deliver(self.feed.live(message))

    def deliver(self, messages: Sequence[Message]) -> None:
        """Put messages into the outboxes of all listeners but their senders'. Each is encoded once per dialect."""
        for message in messages:
            newcomers = self._floor is not None and order(message.id) <= order(self._floor)
            if not newcomers:
                self._floor = None
            frames: dict[object, bytes] = {}
            for listener in self.listeners.values():
                session = listener.session
                if session.path_text == message.sender:
                    continue
                if newcomers and order(message.id) <= order(listener.floor):
                    continue
                frame = frames.get(session.dialect)
                if frame is None:
                    frame = frames[session.dialect] = session.dialect.message(self.name, message)
                session.outbox.push(frame)

    def rename(self, name: str, named: int) -> bool:
        """Take the name that the channel had at version `named`; returns whether that is news.

        Every listener goes on under it, also one that came in by a name that the channel had before.
        """
        if named < self.named:
            return False
        self.named = named
        old, self.name = self.name, name
        for listener in self.listeners.values():
            session = listener.session
            if session.joined.get(name) != self.id:
                session.forget(self.id)
                session.joined[name] = self.id
                session.tell(session.dialect.renamed(old, name))
        return old != name
