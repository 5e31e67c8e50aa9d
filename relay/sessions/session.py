"""A session: one logged-in connection, as everything inside the node sees it."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

from conclave.model import SessionPath
from relay.model.close_reason import CloseReason
from relay.redis.directory import Caller
from relay.sessions.encoder import EventEncoder
from relay.sessions.outbox import Outbox

_REMEMBERED_WHISPERS = 256
"""How many whispers that may come twice a session knows again."""

Replay = Callable[[], Awaitable[None]]


class Session:
    """Who is connected, what they have joined, and the way to them.

    `joined` maps a channel's name to its id. A session that was told to close takes no more requests.
    """

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
        """`interrupt` wakes the socket's reader, so that a close takes effect between two requests.

        `drained` waits until the peer has read most of what was written. It raises TimeoutError if the peer does not
        read, ConnectionError if it is gone.
        """
        self.path = path
        self.path_text = str(path)
        self.pubkey = pubkey
        self.admin = admin
        self.connection = connection
        self.encoder = encoder
        self.outbox = outbox
        self.generation = 0
        self.joined: dict[str, str] = {}
        self.listed_in: set[str] = set()
        """Ids of the channels that may list this session among their subscribers."""
        self.close_reason: CloseReason | None = None
        self.last_heard = asyncio.get_running_loop().time()
        self.drained = drained
        self.replays: deque[Replay] = deque()
        """What the session has missed and has yet to get, one channel after the other."""
        self.replaying = False
        self._interrupt = interrupt
        self._whispers: deque[str] = deque(maxlen=_REMEMBERED_WHISPERS)

    @property
    def caller(self) -> Caller:
        return Caller(self.path_text, self.pubkey, self.path.user, self.admin)

    def forget(self, channel_id: str) -> list[str]:
        """Strike a channel out of what was joined; returns the names that it had there."""
        names = [name for name, joined in self.joined.items() if joined == channel_id]
        for name in names:
            del self.joined[name]
        return names

    def has_heard(self, whisper_id: str) -> bool:
        """Whether this whisper came before; it did from now on. Only the last few are remembered."""
        if whisper_id in self._whispers:
            return True
        self._whispers.append(whisper_id)
        return False

    def heard(self) -> None:
        """Note a sign of life."""
        self.last_heard = asyncio.get_running_loop().time()

    def tell(self, frame: bytes | None) -> None:
        """Send an event, if the session's protocol has one for it."""
        if frame is not None:
            self.outbox.push(frame)

    def close(self, reason: CloseReason) -> None:
        """End the session after the request it is at, if any. The first reason counts."""
        if self.close_reason is None:
            self.close_reason = reason
            self.outbox.mute()
            self._interrupt()
