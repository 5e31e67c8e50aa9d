"""The subscribers of one channel on this node, as a delivery sees them: nearly all of them as groups of outboxes.

A message goes to every subscriber but its sender. To nearly all of them it does so without a look at the subscriber:
their outboxes are kept by protocol version and session path, so a delivery costs one step for each. Those that need a
look are apart from them: subscribers in a catch-up, those that start at a later message, and a second connection with
the path of another one, which a supersession leaves for a moment. No I/O.
"""

from relay.channels.catch_up import CatchUp
from relay.model.message import Message, order
from relay.sessions.encoder import EventEncoder
from relay.sessions.outbox import Flusher, Outbox
from relay.sessions.session import Session


class Subscriber:
    """A session in a channel.

    `joined_at` is the membership version at which the session joined, `reviewed_at` the last one at which a review let
    it stay. The session receives the messages after `after`. While it has a `catch_up`, it receives what that puts out,
    and nothing else. All that it receives follows `begin`.
    """

    __slots__ = ("after", "begin", "catch_up", "fence", "joined_at", "reviewed_at", "session")

    def __init__(self, session: Session, *, joined_at: int, after: str, since: str | None = None) -> None:
        self.session = session
        self.joined_at = self.reviewed_at = joined_at
        self.after = after
        self.begin = after if since is None else since
        self.catch_up: CatchUp | None = None
        self.fence: tuple[int, str] | None = None
        """The fence of the channel when the session was listed, and the number of the connection to Redis by then."""


class Recipients:
    """Delivers each message to the subscribers that are to receive it, and encodes it once per protocol version."""

    def __init__(self, flusher: Flusher) -> None:
        self._flusher = flusher
        self._ready: dict[EventEncoder, dict[str, Outbox]] = {}
        """The outboxes of the subscribers that receive whatever comes next, by encoder and session path."""
        self._apart: dict[str, Subscriber] = {}
        """The subscribers that each delivery looks at, by connection."""

    def add(self, subscriber: Subscriber, position: str) -> None:
        """Add a subscriber, or take in that its catch-up has ended. `position` is the message that came last."""
        self._apart[subscriber.session.connection] = subscriber
        if subscriber.catch_up is None and order(subscriber.after) <= order(position):
            self._make_ready(subscriber)

    def remove(self, session: Session) -> None:
        """Deliver nothing more to a session."""
        self._apart.pop(session.connection, None)
        outboxes = self._ready.get(session.encoder, {})
        if outboxes.get(session.path_text) is session.outbox:
            del outboxes[session.path_text]

    def deliver(self, channel: str, message: Message) -> int:
        """Put a message into the outboxes. Returns the number of sessions that get it; those in a catch-up are none."""
        sessions = self._deliver_apart(channel, message) if self._apart else 0
        for encoder, outboxes in self._ready.items():
            sender = outboxes.get(message.sender)
            others = len(outboxes) - (sender is not None)
            if others:
                self._flusher.push(encoder.message(channel, message), outboxes.values(), sender)
                sessions += others
        return sessions

    def _deliver_apart(self, channel: str, message: Message) -> int:
        sessions = 0
        for subscriber in list(self._apart.values()):
            session = subscriber.session
            if subscriber.catch_up is not None:
                subscriber.catch_up.receive(message)
            elif order(message.id) > order(subscriber.after):
                self._make_ready(subscriber)
                if session.connection in self._apart and session.path_text != message.sender:
                    session.outbox.push(session.encoder.message(channel, message))
                    sessions += 1
        return sessions

    def _make_ready(self, subscriber: Subscriber) -> None:
        """Put a subscriber into the group of its encoder, unless another connection is there under its path."""
        session = subscriber.session
        outboxes = self._ready.setdefault(session.encoder, {})
        if outboxes.setdefault(session.path_text, session.outbox) is session.outbox:
            del self._apart[session.connection]
