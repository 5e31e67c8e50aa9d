"""What the bridge knows of the servers that it is registered at."""

import time
from collections.abc import Callable

from bridge.session.early_messages import EarlyMessages
from bridge.session.read_state import ReadState
from bridge.session.watermarks import Key, server_key
from conclave.urls import same_server


class Server:
    """One cluster, under the first URL that the owner configured for it."""

    def __init__(self, url: str) -> None:
        self.urls = [url]
        """In the owner's order and spelling; the first one names the server, the others are ways to it."""
        self.id: str | None = None
        """The cluster's id; None until it was told, and for servers that have none."""
        self.path = ""
        """Who this session is there; empty before the first login."""
        self.version = 0
        self.marks_version = 0
        """The version of the protocol whose positions the marks of `channels` are."""
        self.up = False
        self.admin = False
        self.channels: dict[str, ReadState] = {}
        """What this session has joined."""
        self.ruled: set[str] = set()
        """Channels that this session's user is known to administer."""
        self.entering: set[str] = set()
        """Channels that are being joined, or whose missed messages are being counted."""
        self.left: set[str] = set()
        """What this session was in on this connection, and has left or is leaving; the last of it may still come."""
        self.strays = EarlyMessages()
        """Messages of channels that the session is on its way into, or has not heard of."""
        self.now_ms: Callable[[], int] = _local_ms
        """The server's clock."""

    @property
    def url(self) -> str:
        return self.urls[0]

    @property
    def key(self) -> Key:
        """Under what this session's watermarks there are kept."""
        return Key(server_key(self.id, self.url), self.path)

    def is_at(self, url: str) -> bool:
        """Tell whether a URL, in whatever spelling, leads here."""
        return any(same_server(known, url) for known in self.urls)

    def rules(self, channel: str, admin: bool | None) -> None:
        """Note whether this session's user administers a channel, if that is known."""
        if admin is not None:
            (self.ruled.add if admin else self.ruled.discard)(channel)

    def leaves(self, channel: str) -> None:
        """Note that this session is leaving a channel; it hears it until the server has said so."""
        self.left.add(channel)

    def drop(self, channel: str) -> None:
        """Note that this session is not in a channel any more."""
        if self.channels.pop(channel, None) is not None:
            self.left.add(channel)
        self.ruled.discard(channel)
        self.entering.discard(channel)
        self.strays.take(channel)

    def rename(self, old: str, new: str) -> None:
        if old in self.ruled:
            self.ruled.remove(old)
            self.ruled.add(new)
        if old in self.entering:
            self.entering.remove(old)
            self.entering.add(new)
        if old in self.channels:
            self.channels[new] = self.channels.pop(old)
            self.left.add(old)
        self.left.discard(new)

    def begin(self) -> None:
        """Note that a new connection has come up, on which nothing has been joined, left or heard."""
        self.entering -= self.channels.keys()
        self.left.clear()
        self.strays.clear()

    def name_of(self, reading: ReadState) -> str | None:
        """Return what the channel of an account is called now; None if the session has left it."""
        return next((name for name, known in self.channels.items() if known is reading), None)

    @property
    def puzzled(self) -> bool:
        """Whether messages came of which the server has to be asked where they belong."""
        return not self.entering.issuperset(self.strays.channels)

    def absorb(self, other: "Server") -> None:
        """Take over what another turned out to be: the same cluster, under a URL that was configured later."""
        self.urls += other.urls
        self.channels = other.channels | self.channels
        self.ruled |= other.ruled


def _local_ms() -> int:
    return time.time_ns() // 1_000_000
