"""The bridge's state of the servers that it is registered at."""

import time
from collections.abc import Callable

from bridge.session.early_messages import EarlyMessages
from bridge.session.watermarks import Key, server_key
from conclave.client.delivery_tracker import DeliveryTracker
from conclave.urls import same_server


class Server:
    """One cluster, under the first URL that the owner configured for it."""

    def __init__(self, url: str) -> None:
        self.urls = [url]
        """In the owner's order and spelling; the first one names the server, the others are further ways to it."""
        self.id: str | None = None
        """The cluster's id; None before it was told, and for servers without one."""
        self.path = ""
        """The session's path there; empty before the first login."""
        self.version = 0
        """The version of the protocol on the present connection."""
        self.marks_version = 0
        """The version of the protocol that the positions in `channels` belong to."""
        self.up = False
        self.admin = False
        self.channels: dict[str, DeliveryTracker] = {}
        """The channels that the session has joined."""
        self.administered: set[str] = set()
        """The channels that the session's user is known to administer."""
        self.joining: set[str] = set()
        """The channels that are being joined, or whose missed messages are being counted."""
        self.left: set[str] = set()
        """The channels that the session has left, or is leaving, on this connection; late messages may still come."""
        self.early = EarlyMessages()
        """Messages of channels that are being joined, or that are not known."""
        self.now_ms: Callable[[], int] = _local_ms
        """The server's clock, in Unix milliseconds."""

    @property
    def url(self) -> str:
        return self.urls[0]

    @property
    def key(self) -> Key:
        """The key of this session's watermarks there."""
        return Key(server_key(self.id, self.url), self.path)

    def is_at(self, url: str) -> bool:
        """Tell if a URL, in any spelling, leads to this server."""
        return any(same_server(known, url) for known in self.urls)

    def set_administered(self, channel: str, admin: bool | None) -> None:
        """Note if the session's user administers a channel; None changes nothing."""
        if admin is not None:
            (self.administered.add if admin else self.administered.discard)(channel)

    def begin_leave(self, channel: str) -> None:
        """Note that the session is leaving a channel; its messages come until the server has confirmed that."""
        self.left.add(channel)

    def remove(self, channel: str) -> None:
        """Note that the session is not in a channel any more."""
        if self.channels.pop(channel, None) is not None:
            self.left.add(channel)
        self.administered.discard(channel)
        self.joining.discard(channel)
        self.early.take(channel)

    def rename(self, old: str, new: str) -> None:
        if old in self.administered:
            self.administered.remove(old)
            self.administered.add(new)
        if old in self.joining:
            self.joining.remove(old)
            self.joining.add(new)
        if old in self.channels:
            self.channels[new] = self.channels.pop(old)
            self.left.add(old)
        self.left.discard(new)

    def reconnected(self) -> None:
        """Note a new connection, on which nothing was joined, left or received yet."""
        self.joining -= self.channels.keys()
        self.left.clear()
        self.early.clear()
        for tracker in self.channels.values():
            tracker.forget_echoes()

    def name_of(self, tracker: DeliveryTracker) -> str | None:
        """Return the present name of a tracker's channel; None if the session has left it."""
        return next((name for name, known in self.channels.items() if known is tracker), None)

    @property
    def has_unknown_channels(self) -> bool:
        """True if messages came of channels that are not known, so that the server has to be asked about them."""
        return not self.joining.issuperset(self.early.channels)

    def absorb(self, other: "Server") -> None:
        """Take over the state of another server that is the same cluster, under a URL that was configured later."""
        self.urls += other.urls
        self.channels = other.channels | self.channels
        self.administered |= other.administered


def _local_ms() -> int:
    return time.time_ns() // 1_000_000
