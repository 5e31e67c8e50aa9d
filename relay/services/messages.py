"""Messages: posts, whispers, history."""

import asyncio
import secrets
import time
from collections.abc import Iterable
from typing import Any

import msgspec
from msgspec.structs import replace

from conclave.errors import Code, Refusal
from conclave.model import SessionPath
from conclave.text import shortened
from relay.channels.fanout import FanOut
from relay.model.errors import StoreUnavailable
from relay.model.message import PAGE_BYTES, START, Message
from relay.observability import tracing
from relay.observability.metrics import Metrics
from relay.redis.channel_log import FENCED, ChannelLog, LogPage, appended
from relay.redis.directory import Directory
from relay.redis.idempotency import IdempotencyKeys, IdempotencyRecord
from relay.redis.inbox import Inbox
from relay.redis.leases import Holder, Leases, latest
from relay.redis.node_registry import NodeRegistry
from relay.redis.signals import Whisper
from relay.services.fencing import Fencing
from relay.services.refusals import not_member, undelivered, valid_key, valid_position
from relay.sessions.session import Session

PAGE_ROWS = 500
HISTORY_ROWS = 100
_LATEST_MS = 10**15
_LAST_OF_MS = 2**64 - 1
_ATTEMPTS = 5


class PendingPost(msgspec.Struct, frozen=True):
    """A post that waits for Redis. `version` is the membership version of its channel that this node had applied.

    `fence` is the one that the session knew. `size` is that of the body, in bytes; `reply` is Redis' answer, which
    `appended` reads.
    """

    channel_id: str
    version: int
    fence: str
    size: int
    reply: asyncio.Future[Any]
    began: float


class Messages:
    """Posts, whispers and pages of history. Every method raises Refusal."""

    def __init__(
        self,
        *,
        directory: Directory,
        channel_log: ChannelLog,
        fanout: FanOut,
        leases: Leases,
        inbox: Inbox,
        idempotency_keys: IdempotencyKeys,
        registry: NodeRegistry,
        fencing: Fencing,
        max_bytes: int,
        metrics: Metrics,
    ) -> None:
        """`max_bytes` bounds the body of a message."""
        self._directory = directory
        self._log = channel_log
        self._fanout = fanout
        self._leases = leases
        self._inbox = inbox
        self._idempotency_keys = idempotency_keys
        self._registry = registry
        self._fencing = fencing
        self._max_bytes = max_bytes
        self._metrics = metrics

    async def post(
        self, session: Session, channel: str, payload: bytes, size: int, *, key: str | None = None
    ) -> tuple[str, int]:
        """Append a message, `size` bytes of body, to the channel's log, and deliver it to the sessions in the channel.

        Returns its id and its time (ms of Redis' clock). The sender's own session does not get it. With an idempotency
        `key` that the user has used in this channel in the last five minutes nothing is posted, and these are those of
        the first message.
        """
        if key is not None:
            valid_key(key)
        for _ in range(_ATTEMPTS):
            await self._fencing.check(session)
            channel_id = await self._joined(session, channel)
            self._check_size(size)
            with tracing.post(channel_id) as trace:
                pending = self._append(session, channel_id, payload, size, key=key, trace=trace)
                reply = appended(await pending.reply)
            if reply is None:
                raise not_member(channel)
            if isinstance(reply, str):
                return self._posted(pending, reply)
            if reply == FENCED:
                await self._fencing.verify(session, channel_id)
                continue
            # The membership has changed: apply that version, and post only if the session is still in the channel.
            await self._fanout.apply_version(channel_id, reply)
        raise StoreUnavailable("the membership or the list of subscribers of the channel kept changing")

    def begin_post(
        self,
        session: Session,
        channel: str,
        payload: bytes,
        size: int,
        *,
        key: str | None,
        in_flight: Iterable[PendingPost],
    ) -> PendingPost | None:
        """Begin what `post` does, if nothing has to be awaited before; else return None. Raises: Refusal.

        `in_flight` are the session's posts that Redis has not answered yet, the last one first. This one may follow one
        to the same channel only at the same membership version and with the same fence: if one of them has changed,
        both fail, and are repeated in their order.
        """
        if key is not None:
            valid_key(key)
        channel_id = session.joined.get(channel)
        if channel_id is None or size > self._max_bytes or time.monotonic() > self._inbox.current_until:
            return None
        previous = next((each for each in in_flight if each.channel_id == channel_id), None)
        if previous is not None and (previous.version, previous.fence) != self._fanout.applied_terms(
            channel_id, session.connection
        ):
            return None
        return self._append(session, channel_id, payload, size, key=key)

    def finish_post(self, pending: PendingPost) -> tuple[str, int] | None:
        """Return what `post` returns, or None if `post` has to repeat it. Raises: StoreUnavailable."""
        message_id = appended(pending.reply.result())
        return self._posted(pending, message_id) if isinstance(message_id, str) else None

    def _append(
        self, session: Session, channel_id: str, payload: bytes, size: int, *, key: str | None, trace: str = ""
    ) -> PendingPost:
        version, fence, seen, not_before = self._fanout.post_terms(channel_id, session.connection)
        reply = self._log.append(
            channel_id,
            session.path_text,
            payload,
            version=version,
            fence=fence,
            key=key,
            trace=trace,
            seen=seen,
            not_before=not_before,
        )
        return PendingPost(channel_id, version, fence, size, reply, time.monotonic())

    def _posted(self, pending: PendingPost, message_id: str) -> tuple[str, int]:
        self._metrics.publish_seconds.observe(time.monotonic() - pending.began)
        self._metrics.posts.inc()
        ms = int(message_id.partition("-")[0])
        self._fanout.acknowledge(pending.channel_id, message_id, ms)
        return message_id, ms

    async def whisper(
        self, session: Session, target: SessionPath, payload: bytes, size: int, *, key: str | None = None
    ) -> tuple[str, int]:
        """Send a message to one session, on whichever node it is. It is not stored.

        When this returns, the whisper is in the outbox of a session of the target. If its node does not say so within
        a few seconds, this is refused as `unavailable`: it may arrive, or have arrived.

        Returns its id and its time (ms of Redis' clock). With an idempotency `key` that the user has used for a whisper
        in the last five minutes these are those of the first one; it is not sent again if it is known to be sent.
        """
        outcome = Code.INTERNAL.value
        try:
            sent = await self._whisper(session, target, payload, size, key)
            outcome = "ok"
            return sent
        except Refusal as refusal:
            outcome = refusal.code.value
            raise
        finally:
            self._metrics.whispers.labels(outcome=outcome).inc()

    async def _whisper(
        self, session: Session, target: SessionPath, payload: bytes, size: int, key: str | None
    ) -> tuple[str, int]:
        if key is not None:
            valid_key(key)
        self._check_size(size)
        if target == session.path:
            raise Refusal(Code.MALFORMED, "cannot whisper to your own session")
        await self._fencing.check(session)
        record = IdempotencyRecord(secrets.token_hex(8), 0, sent=False)
        if key is not None:
            record = await self._idempotency_keys.reserve(session.path.user, key, record.id)
            if record.sent:
                return record.id, record.ts
        whisper = Whisper("", session.path_text, str(target), payload, record.id, record.ts, key is not None)
        sent_at = await self._deliver(target, whisper)
        if key is not None:
            await self._idempotency_keys.mark_sent(session.path.user, key, record)
        return record.id, record.ts or sent_at

    async def _deliver(self, target: SessionPath, whisper: Whisper) -> int:
        """Send a whisper to the connection that holds a path. Returns its time. Raises: Refusal."""
        gone: Holder | None = None
        closed: Holder | None = None
        for _ in range(_ATTEMPTS):
            alive, holders = await asyncio.gather(self._registry.alive(), self._leases.holders(target))
            holder = latest(holders, alive)
            if holder is None or holder == gone:
                raise Refusal(Code.NOT_FOUND, f"session `{shortened(str(target))}` is not online")
            if holder == closed:
                break
            delivery = await self._inbox.whisper(holder.node, replace(whisper, connection=holder.connection))
            match delivery.outcome:
                case "taken":
                    return delivery.ms
                case "gone":  # the session may have logged in again meanwhile
                    gone = holder
                case "closed":  # its node may have got another name meanwhile
                    closed = holder
                case _:
                    break
        raise undelivered()

    async def history(
        self, session: Session, channel: str, *, after: str | int | None, before: str | None, limit: int | None
    ) -> LogPage:
        """Return a page of messages, oldest first, and whether there are more in the direction of the request.

        With `after` (a message's id, or Unix milliseconds) they are the oldest ones after it, else the newest ones. All
        are before `before`. A page has at most `limit` messages, and 4 MiB.
        """
        limit = HISTORY_ROWS if limit is None else limit
        if not 1 <= limit <= PAGE_ROWS:
            raise Refusal(Code.MALFORMED, f"a limit is 1 to {PAGE_ROWS}")
        for position in (after, before):
            if isinstance(position, str):
                valid_position(position)
            elif position is not None and not 0 <= position < _LATEST_MS:
                raise Refusal(Code.MALFORMED, "a time is a number of Unix milliseconds")
        channel_id = await self._joined(session, channel)
        while True:
            piece = await self._log.history(channel_id, after, before, rows=limit, size=PAGE_BYTES)
            await self._still_joined(session, channel, channel_id, piece.version)
            rows = [row for row in piece.rows if row.is_readable]
            if rows or not piece.more:
                return piece if len(rows) == len(piece.rows) else replace(piece, rows=rows)
            if after is None:
                before = piece.rows[0].id
            else:
                after = piece.rows[-1].id

    async def read_since(self, session: Session, channel: str, since_ms: int) -> list[Message]:
        """Return a page of the messages after a millisecond, oldest first. It ends with a complete millisecond.

        So a client that goes on from the last row's millisecond reads every message once. A page has up to 500 rows or
        4 MiB, and more only to complete its last millisecond.
        """
        channel_id = await self._joined(session, channel)
        after = START if since_ms < 0 else f"{since_ms}-{_LAST_OF_MS}"
        while True:
            page = await self._log.page(channel_id, after, rows=PAGE_ROWS, size=PAGE_BYTES, whole_ms=True)
            await self._still_joined(session, channel, channel_id, page.version)
            rows = [row for row in page.rows if row.is_readable]
            if rows or not page.more:
                return rows
            after = page.rows[-1].id

    async def _still_joined(self, session: Session, channel: str, channel_id: str, version: int) -> None:
        """Refuse a page that was read at a membership version at which the session has lost the channel."""
        await self._fanout.apply_version(channel_id, version)
        if session.joined.get(channel) != channel_id:
            raise not_member(channel)

    async def _joined(self, session: Session, channel: str) -> str:
        channel_id = session.joined.get(channel)
        if channel_id is not None:
            return channel_id
        # A renamed channel has its new name immediately, also where its announcement has not arrived yet.
        channel_id = await self._directory.id_of(channel)
        if channel_id is not None and channel_id in session.joined.values():
            await self._fanout.apply_latest_version(channel_id)
        if channel_id is None or session.joined.get(channel) != channel_id:
            raise not_member(channel)
        return channel_id

    def _check_size(self, size: int) -> None:
        if size > self._max_bytes:
            raise Refusal(Code.TOO_LARGE, f"message of {size} bytes exceeds the limit of {self._max_bytes} bytes")
