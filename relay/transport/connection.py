"""The life of a connection: upgrade, login, requests, close."""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial

import structlog
from aiohttp import web

from conclave.protocol.limits import FRAME_BYTES, usual_message
from relay.model.close_reason import CloseReason
from relay.observability import logs
from relay.observability.metrics import Metrics
from relay.protocol.codec import Codec, Handshake
from relay.services.context import RequestContext, Services
from relay.sessions.outbox import Flusher
from relay.sessions.session import Session
from relay.transport.login import Logins, accept
from relay.transport.long_messages import LongMessages
from relay.transport.requests import RequestPipeline
from relay.transport.stalls import Stalls
from relay.transport.websocket import ServerWebSocket, Traffic

log = structlog.get_logger()


class Connections:
    """Serves connections, each in a task."""

    def __init__(
        self,
        *,
        services: Services,
        codecs: Sequence[Codec],
        flusher: Flusher,
        metrics: Metrics,
        outbox_bytes: int,
        message_bytes: int,
        handshake_seconds: float,
    ) -> None:
        """`codecs` are the protocol versions; one of them has no subprotocol and serves clients that offer none.

        `message_bytes` bounds the body of a message.
        """
        self._services = services
        self._codecs = {codec.subprotocol: codec for codec in codecs}
        self._metrics = metrics
        self._traffic = Traffic(metrics.received_bytes.inc, metrics.sent_bytes.inc)
        self._stalls = Stalls()
        self._serving: set[asyncio.Task[None]] = set()
        self._long_messages = LongMessages(usual=usual_message(message_bytes))
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
        """Upgrade a request, and serve its client up to the close in a task. Returns the response."""
        codec = self._negotiated(request)
        socket = ServerWebSocket(
            text=codec.text, traffic=self._traffic, stalls=self._stalls, long_messages=self._long_messages
        )
        try:
            response = await socket.accept(request, cluster, subprotocol=codec.subprotocol)
        except ConnectionError:
            return web.Response(status=400)  # the client is gone and reads no answer
        serving = asyncio.create_task(
            self._serve(socket, codec, partial(codec.handshake, cluster, node), request.remote)
        )
        self._serving.add(serving)
        serving.add_done_callback(self._serving.discard)
        return response

    async def close(self, seconds: float) -> None:
        """Wait until the connections have ended. Those that have not after `seconds` are cut."""
        if self._serving:
            await asyncio.wait(self._serving, timeout=seconds)
        for serving in self._serving:
            serving.cancel()
        if self._serving:
            await asyncio.wait(self._serving, timeout=seconds)

    async def _serve(
        self, socket: ServerWebSocket, codec: Codec, begin: Callable[[], Handshake], remote: str | None
    ) -> None:
        try:
            session = await self._logins.log_in(socket, codec, begin, remote=remote)
            if session is not None:
                await self._serve_session(socket, codec, session)
            await socket.close()
        except BaseException:
            socket.transport.abort()
            raise

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
            context = RequestContext(session, self._services)
            pipeline = RequestPipeline(socket, codec, context, metrics=self._metrics, longest_reply=self._longest_reply)
            reason = await pipeline.run()
        except Exception:
            log.exception("session.failed")
            reason = CloseReason.LOST
        finally:
            session.close(CloseReason.LOST)
            await self._services.presence.close(session)
        self._metrics.closes.labels(reason=reason.value).inc()
        log.info("session.closed", reason=reason.value)
        session.outbox.finish(socket.closing_frame(codec.closing(reason)))
