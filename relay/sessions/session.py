"""A session: one logged-in connection, as the services and the fan-out see it."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

from conclave.model import SessionPath
from relay.model.close_reason import CloseReason
from relay.redis.directory import Caller
from relay.redis.leases import Claim
from relay.sessions.encoder import EventEncoder
from relay.sessions.outbox import Outbox

_REMEMBERED_WHISPERS = 256
"""The ids that a session remembers of whispers that may come twice."""

Replay = Callable[[], Awaitable[None]]


class Session:
    """The identity of a client, the channels it has joined, and the outbox of its frames.

    `joined` maps a channel's name to its id. A session that has a `close_reason` takes no more requests.
    """

    __slots__ = (
        *("_interrupt", "_whispers", "admin", "close_reason", "connection", "drained", "encoder", "generation"),
        *("joined", "last_activity", "listed_in", "noted_in", "outbox", "path", "path_text", "pubkey", "replaying"),
        *("replays", "supersedes"),
    )

    def __init__(
        self,
        *,
        path: SessionPath,
        pubkey: str,
        admin: bool,
        connection: str,
        encoder: EventEncoder,
        outbox: Outbox,
        interrupt: Callable[[], None],
        drained: Callable[[], Awaitable[None]],
    ) -> None:
        """`interrupt` wakes the reader of the socket, so that a close takes effect between two requests.

        `drained` waits until the client has read most of what was written. It raises TimeoutError if the client does
        not read, ConnectionError if it is gone.
        """
        self.path = path
        self.path_text = str(path)
        self.pubkey = pubkey
        self.admin = admin
        self.connection = connection
        self.encoder = encoder
        self.outbox = outbox
        self.generation = 0
        """The fencing generation of the session's lease; 0 while its login is under way."""
        self.joined: dict[str, str] = {}
        self.listed_in: set[str] = set()
        """Ids of the channels that this session is in, or joins: they list it among their subscribers."""
        self.noted_in: set[str] = set()
        """Ids of the channels in which the directory may note this session."""
        self.supersedes: tuple[str, ...] = ()
        """The earlier connections of the path: what they are listed in is taken over by this session."""
        self.close_reason: CloseReason | None = None
        self.last_activity = asyncio.get_running_loop().time()
        """The time at which the client last sent or read something: seconds of the event loop's clock."""
        self.drained = drained
        self.replays: list[Replay] = []
        """Replays that are still to run, one channel after the other."""
        self.replaying = False
        self._interrupt = interrupt
        self._whispers: deque[str] | None = None

    @property
    def caller(self) -> Caller:
        return Caller(self.path_text, self.pubkey, self.path.user, self.admin)

    @property
    def claim(self) -> Claim:
        """The session's claim to its path."""
        return Claim(self.connection, self.path, self.pubkey, self.generation)

    def forget_channel(self, channel_id: str) -> list[str]:
        """Remove a channel from those that were joined. Returns the names that it had here."""
        names = [name for name, joined in self.joined.items() if joined == channel_id]
        for name in names:
            del self.joined[name]
        return names

    def is_repeated(self, whisper_id: str) -> bool:
        """Return True if this whisper was among the last few; the next call with its id returns True in any case."""
        if self._whispers is None:
            self._whispers = deque(maxlen=_REMEMBERED_WHISPERS)  # most sessions get no such whisper
        if whisper_id in self._whispers:
            return True
        self._whispers.append(whisper_id)
        return False

    def send_event(self, frame: bytes | None) -> None:
        """Put an event into the outbox; None, for one that the session's protocol does not have, is skipped."""
        if frame is not None:
            self.outbox.push(frame)

    def close(self, reason: CloseReason) -> None:
        """End the session after the request that is under way, if any. The first reason counts."""
        if self.close_reason is None:
            self.close_reason = reason
            self.outbox.mute()
            self._interrupt()
