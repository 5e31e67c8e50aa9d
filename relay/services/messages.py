"""What is said: posts, whispers, history."""

from conclave.errors import Code, Refusal
from conclave.model import SessionPath
from relay.errors import StoreUnavailable
from relay.fanout import FanOut
from relay.message import START, Message
from relay.redis.channel_log import ChannelLog
from relay.redis.directory import Directory
from relay.redis.inbox import Inbox, Whisper
from relay.redis.leases import Leases
from relay.redis.nodes import Registry
from relay.refusals import not_member, shown
from relay.session import Session

PAGE_ROWS = 500
PAGE_BYTES = 4 * 1024 * 1024
_LAST_OF_MS = 2**64 - 1
_ATTEMPTS = 5


class Messages:
    """Takes messages in and hands history out. Every method raises Refusal."""

    def __init__(
        self,
        *,
        directory: Directory,
        channel_log: ChannelLog,
        fanout: FanOut,
        leases: Leases,
        inbox: Inbox,
        registry: Registry,
        max_bytes: int,
    ) -> None:
        """`max_bytes` bounds a body."""
        self._directory = directory
        self._log = channel_log
        self._fanout = fanout
        self._leases = leases
        self._inbox = inbox
        self._registry = registry
        self._max_bytes = max_bytes

    async def post(self, session: Session, channel: str, payload: bytes, size: int) -> str:
        """Keep a message, `size` bytes of body, and hand it to every session in the channel but its sender's.

        Returns its id. When this returns, the message is in the channel's log.
        """
        for _ in range(_ATTEMPTS):
            channel_id = await self._joined(session, channel)
            self._check_size(size)
            version = self._fanout.version(channel_id)
            reply = await self._log.append(channel_id, session.path, payload, version=version)
            if reply is None:
                raise not_member(channel)
            if isinstance(reply, str):
                return reply
            # Who may speak here has changed: look again, and then at whether this session still may.
            await self._fanout.review(channel_id, reply)
        raise StoreUnavailable("who may hear the channel kept changing")

    async def whisper(self, session: Session, target: SessionPath, payload: bytes, size: int) -> None:
        """Hand a message to one session on whichever node it is; it is kept nowhere."""
        self._check_size(size)
        if target == session.path:
            raise Refusal(Code.MALFORMED, "cannot whisper to your own session")
        holder = await self._leases.holder(target, await self._registry.alive())
        if holder is None:
            raise Refusal(Code.NOT_FOUND, f"session `{shown(str(target))}` is not online")
        await self._inbox.send(holder.node, Whisper(holder.connection, session.path_text, str(target), payload))

    async def read_since(self, session: Session, channel: str, since_ms: int) -> list[Message]:
        """Return what was said after a millisecond, oldest first; one page, which ends with a whole millisecond.

        So whoever asks again with the last row's millisecond reads every message once. A page has up to 500 rows or
        4 MiB, and goes beyond that only to complete its last millisecond.
        """
        channel_id = await self._joined(session, channel)
        after = START if since_ms < 0 else f"{since_ms}-{_LAST_OF_MS}"
        page = await self._log.page(channel_id, after, rows=PAGE_ROWS, size=PAGE_BYTES, whole_ms=True)
        await self._fanout.review(channel_id, page.version)
        if session.joined.get(channel) != channel_id:
            raise not_member(channel)
        return page.rows

    async def _joined(self, session: Session, channel: str) -> str:
        channel_id = session.joined.get(channel)
        if channel_id is not None:
            return channel_id
        # A channel that was renamed has its new name at once, also where this node has not heard of it yet.
        channel_id = await self._directory.id_of(channel)
        if channel_id is not None and channel_id in session.joined.values():
            await self._fanout.refresh(channel_id)
        if channel_id is None or session.joined.get(channel) != channel_id:
            raise not_member(channel)
        return channel_id

    def _check_size(self, size: int) -> None:
        if size > self._max_bytes:
            raise Refusal(Code.TOO_LARGE, f"message of {size} bytes exceeds the limit of {self._max_bytes} bytes")
