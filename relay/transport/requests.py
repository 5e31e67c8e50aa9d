"""The requests of one session: taken as the client sends them, answered in their order.

A request begins in the turn of the event loop in which it arrives. One that has to wait gets a task, and the next one
begins when it is answered. Only posts in a row wait for Redis together: the store executes them in the order in which
they were sent, so no order is lost, and a client that has many in flight pays for one round trip.
"""

import asyncio
import contextvars
from typing import Any, NamedTuple

import structlog

from conclave.errors import Code, FrameError, Refusal
from conclave.protocol.requests import Sent
from relay.model.close_reason import CloseReason
from relay.observability import redaction, tracing
from relay.observability.metrics import Metrics
from relay.protocol import operations
from relay.protocol.codec import Codec, IncomingRequest
from relay.protocol.message_requests import Post
from relay.protocol.operations import Reply
from relay.services.context import RequestContext
from relay.services.messages import PendingPost
from relay.transport.websocket import ServerWebSocket

log = structlog.get_logger()

_REQUESTS_PER_TURN = 64
"""The number of a session's requests that begin before other connections get a turn."""
_POSTS_IN_FLIGHT = 64
_POSTED_BYTES = 256 * 1024
"""The posts of one session that wait for Redis together are no more than these, in number and in bytes of bodies."""


class _Posting(NamedTuple):
    request: IncomingRequest
    asked: Any
    pending: PendingPost


class RequestPipeline:
    """Answers one session's requests until the session ends."""

    __slots__ = (
        *("_codec", "_context", "_end", "_ended", "_fields", "_is_starved", "_longest_reply", "_loop"),
        *("_messages", "_metrics", "_next", "_posted_bytes", "_posts", "_session", "_socket", "_task", "_turn"),
    )

    def __init__(
        self, socket: ServerWebSocket, codec: Codec, context: RequestContext, *, metrics: Metrics, longest_reply: int
    ) -> None:
        """`longest_reply` bounds a reply, in bytes; a longer one is replaced by a refusal."""
        self._socket = socket
        self._codec = codec
        self._context = context
        self._session = context.session
        self._messages = context.services.messages
        self._metrics = metrics
        self._longest_reply = longest_reply
        self._loop = asyncio.get_running_loop()
        self._fields = contextvars.copy_context()
        """The context of the session, whose fields its log events carry."""
        self._ended: asyncio.Future[CloseReason] = self._loop.create_future()
        self._posts: list[_Posting] = []
        self._posted_bytes = 0
        self._next: tuple[IncomingRequest, Any] | None = None
        """A request that begins when the posts in flight are answered."""
        self._task: asyncio.Task[None] | None = None
        """The request that is answered in a task."""
        self._end: CloseReason | None = None
        """The reason for the end of the session, which ends when what has begun is answered."""
        self._turn: asyncio.Handle | None = None
        self._is_starved = False
        """True if, since the last change, all that the client has sent was taken."""

    async def run(self) -> CloseReason:
        """Answer requests until the session ends. Returns the reason, once every request that began is answered."""
        self._socket.on_change = self._proceed
        self._proceed()
        try:
            return await self._ended
        finally:
            self._socket.on_change = _nothing
            if self._turn is not None:
                self._turn.cancel()
            if self._task is not None:
                self._task.cancel()

    # --- Requests begin ---

    def _proceed(self) -> None:
        """Begin the requests that can begin now, or end."""
        self._is_starved = False
        try:
            for _ in range(_REQUESTS_PER_TURN):
                if not self._proceeds():
                    return
        except Exception as error:  # noqa: BLE001 - `run` raises it
            self._fail(error)
            return
        if self._turn is None:
            self._turn = self._loop.call_soon(self._next_turn)

    def _next_turn(self) -> None:
        self._turn = None
        self._proceed()

    def _proceeds(self) -> bool:
        """Begin one request, if one can begin now."""
        if self._task is not None or self._ended.done():
            return False
        self._end = self._end or self._session.close_reason
        if self._next is None and self._end is None:
            return self._has_room() and self._take()
        if self._posts:
            return False
        if self._next is not None:
            (request, asked), self._next = self._next, None
            self._start(request, asked)
        elif self._end is not None:
            self._ended.set_result(self._end)
        return False

    def _has_room(self) -> bool:
        if self._socket.is_blocked:
            self._end = CloseReason.SLOW_READER if self._socket.has_stalled else None
            return self._socket.has_stalled
        return len(self._posts) < _POSTS_IN_FLIGHT and self._posted_bytes < _POSTED_BYTES

    def _take(self) -> bool:
        """Take the client's next message. Returns False if there is none."""
        try:
            data = self._socket.next_message()
            self._is_starved = data is None and not self._socket.has_ended
            request = None if data is None else self._codec.decode_request(data)
        except FrameError as error:
            self._fields.copy().run(log.info, "session.malformed", error=redaction.redact_quotes(str(error)))
            self._end = CloseReason.MALFORMED
            return True
        if request is None:
            self._end = None if self._is_starved else CloseReason.LEFT
            return not self._is_starved
        self._session.last_activity = self._loop.time()
        self._begin(request)
        self._is_starved = not self._socket.has_more
        return not self._is_starved

    def _begin(self, request: IncomingRequest) -> None:
        pending: PendingPost | None = None
        try:
            asked = request.decode()
            if type(asked) is Post and not tracing.recording:
                pending = self._begin_post(asked)
        except Exception as error:  # noqa: BLE001 - `_answer` replies to it
            asked = error
        if pending is not None:
            self._posts.append(_Posting(request, asked, pending))
            self._posted_bytes += pending.size
            pending.reply.add_done_callback(self._settle)
        elif self._posts:
            self._next = request, asked
        else:
            self._start(request, asked)

    def _begin_post(self, post: Post) -> PendingPost | None:
        """Post without a task, if nothing has to be awaited before. Raises: Refusal."""
        in_flight = (posting.pending for posting in reversed(self._posts))
        return self._messages.begin_post(
            self._session, post.channel, post.body.payload, post.body.size, key=post.key, in_flight=in_flight
        )

    def _start(self, request: IncomingRequest, asked: Any) -> None:
        self._task = self._loop.create_task(self._serve(request, asked), context=self._fields)

    # --- Requests are answered ---

    async def _serve(self, request: IncomingRequest, asked: Any) -> None:
        try:
            self._send(await self._answer(request, asked))
        except Exception as error:  # noqa: BLE001 - `run` raises it
            self._fail(error)
        else:
            self._task = None
            self._settle()

    def _settle(self, reply: "asyncio.Future[Any] | None" = None) -> None:
        """Answer the posts whose replies have come, in order, then go on."""
        if self._ended.done():
            if reply is not None and not reply.cancelled():
                reply.exception()  # it would be logged as one that nobody retrieved
            return
        try:
            while self._task is None and self._posts and self._posts[0].pending.reply.done():
                self._settle_post(self._posts.pop(0))
        except Exception as error:  # noqa: BLE001 - `run` raises it
            self._fail(error)
            return
        if self._next is not None or self._end is not None or not self._is_starved:
            self._proceed()

    def _settle_post(self, posting: _Posting) -> None:
        self._posted_bytes -= posting.pending.size
        try:
            sent = self._messages.finish_post(posting.pending)
        except Exception as error:  # noqa: BLE001 - `_answer` replies to it
            self._start(posting.request, error)
        else:
            if sent is None:
                self._start(posting.request, posting.asked)
            else:
                self._session.outbox.send(posting.request.reply(Sent(*sent)))

    async def _answer(self, request: IncomingRequest, asked: Any) -> Reply:
        """Carry out a request. A refusal and a defect are replies, too; a session outlives both."""
        try:
            reply = await self._carry_out(request, asked)
        except Refusal as refusal:
            return self._refused(request, refusal)
        except Exception:
            log.exception("request.failed")
            return self._refused(request, Refusal(Code.INTERNAL, "the relay failed to carry this out"))
        if len(reply.frame) > self._longest_reply:
            too_large = Refusal(Code.TOO_LARGE, f"the reply would exceed {self._longest_reply} bytes")
            return self._refused(request, too_large)
        return reply

    async def _carry_out(self, request: IncomingRequest, asked: Any) -> Reply:
        """Carry out what was asked. Raises it instead if it is an exception, of a request that could not begin."""
        if isinstance(asked, Exception):
            raise asked
        return await operations.answer(self._context, request, asked)

    def _refused(self, request: IncomingRequest, refusal: Refusal) -> Reply:
        log.debug("request.refused", code=refusal.code.value)
        self._metrics.refusals.labels(code=refusal.code.value).inc()
        return Reply(request.refused(refusal))

    def _send(self, reply: Reply) -> None:
        self._session.outbox.send(reply.frame)
        if reply.after is not None:
            reply.after()

    def _fail(self, error: Exception) -> None:
        if not self._ended.done():
            self._ended.set_exception(error)


def _nothing() -> None:
    """Do nothing: the callback of a socket whose session has ended."""
