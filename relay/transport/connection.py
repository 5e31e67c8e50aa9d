"""The life of a connection: upgrade, login, requests one after the other, close."""

import asyncio
from collections.abc import Sequence

import structlog
from aiohttp import web

from conclave.errors import Code, FrameError, Refusal
from conclave.protocol.limits import FRAME_BYTES
from relay.model.close_reason import CloseReason
from relay.observability import logs, redaction
from relay.observability.metrics import Metrics
from relay.protocol import operations
from relay.protocol.codec import Codec, IncomingRequest
from relay.protocol.operations import Reply
from relay.services.context import RequestContext, Services
from relay.sessions.outbox import Flusher
from relay.sessions.session import Session
from relay.transport.login import Logins, accept
from relay.transport.websocket import Interrupted, ServerWebSocket, Traffic

log = structlog.get_logger()


class Connections:
    """Serves connections, each in the task of its HTTP request."""

    def __init__(
        self,
        *,
        services: Services,
        codecs: Sequence[Codec],
        flusher: Flusher,
        metrics: Metrics,
        outbox_bytes: int,
        handshake_seconds: float,
    ) -> None:
        """`codecs` are the protocol versions; one of them has no subprotocol and serves clients that offer none."""
        self._services = services
        self._codecs = {codec.subprotocol: codec for codec in codecs}
        self._metrics = metrics
        self._traffic = Traffic(metrics.received_bytes.inc, metrics.sent_bytes.inc)
        self._longest_reply = min(FRAME_BYTES, outbox_bytes)
        self._logins = Logins(
            services=services,
            flusher=flusher,
            metrics=metrics,
            outbox_bytes=outbox_bytes,
            handshake_seconds=handshake_seconds,
        )

    def refuse_logins(self) -> None:
        """Refuse every client that has not logged in yet: the node shuts down."""
        self._logins.refuse_all()

    async def serve(self, request: web.Request, cluster: str, node: str) -> web.StreamResponse:
        """Serve one client from the upgrade to the close."""
        codec = self._negotiated(request)
        try:
            socket = await ServerWebSocket.accept(
                request, cluster, subprotocol=codec.subprotocol, text=codec.text, traffic=self._traffic
            )
        except ConnectionError:
            return web.Response(status=400)  # the client is gone and reads no answer
        session = await self._logins.log_in(socket, codec, codec.handshake(cluster, node), remote=request.remote)
        if session is not None:
            await self._serve_session(socket, codec, session)
        await socket.close()
        return socket.response

    def _negotiated(self, request: web.Request) -> Codec:
        """Return the first protocol version that the client offers and the node has, else the one without a name."""
        offers = ",".join(request.headers.getall("Sec-WebSocket-Protocol", ())).split(",")
        known = (self._codecs[offer.strip()] for offer in offers if offer.strip() in self._codecs)
        return next(known, self._codecs[None])

    async def _serve_session(self, socket: ServerWebSocket, codec: Codec, session: Session) -> None:
        logs.bind_session(session.path_text, session.connection)
        log.info("session.established")
        try:
            accept(socket, codec, session)
            reason = await self._serve_requests(socket, codec, session)
        except Exception:
            log.exception("session.failed")
            reason = CloseReason.LOST
        finally:
            session.close(CloseReason.LOST)
            await self._services.presence.close(session)
        self._metrics.closes.labels(reason=reason.value).inc()
        log.info("session.closed", reason=reason.value)
        session.outbox.finish(codec.closing(reason))

    async def _serve_requests(self, socket: ServerWebSocket, codec: Codec, session: Session) -> CloseReason:
        context, clock = RequestContext(session, self._services), asyncio.get_running_loop().time
        while session.close_reason is None:
            try:
                data = await socket.receive()
                request = None if data is None else codec.decode_request(data)
            except Interrupted:
                continue
            except FrameError as error:
                log.info("session.malformed", error=redaction.redact_quotes(str(error)))
                return CloseReason.MALFORMED
            if request is None:
                return CloseReason.LEFT
            session.last_activity = clock()
            reply = await self._answer(context, request)
            session.outbox.send(reply.frame)
            if reply.after is not None:
                reply.after()
            try:
                await socket.drain()
            except TimeoutError:
                return CloseReason.SLOW_READER
            except ConnectionError:
                return CloseReason.LOST
        return session.close_reason

    async def _answer(self, context: RequestContext, request: IncomingRequest) -> Reply:
        """Carry out a request. A refusal and a defect are replies, too; a session outlives both."""
        try:
            reply = await operations.answer(context, request)
        except Refusal as refusal:
            log.debug("request.refused", code=refusal.code.value)
            return self._refused(request, refusal)
        except Exception:
            log.exception("request.failed")
            return self._refused(request, Refusal(Code.INTERNAL, "the relay failed to carry this out"))
        if len(reply.frame) > self._longest_reply:
            too_large = Refusal(Code.TOO_LARGE, f"the reply would exceed {self._longest_reply} bytes")
            return self._refused(request, too_large)
        return reply

    def _refused(self, request: IncomingRequest, refusal: Refusal) -> Reply:
        self._metrics.refusals.labels(code=refusal.code.value).inc()
        return Reply(request.refused(refusal))
