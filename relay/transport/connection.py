"""A connection's life: handshake, login, requests one after the other, close."""

import asyncio
import secrets
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import structlog
from aiohttp import web

from conclave.errors import Code, ConclaveError, FrameError, Refusal
from conclave.model import SessionPath
from conclave.protocol.credentials import LoginClaim, RegistrationClaim, timed_out
from relay.model.close_reason import CloseReason, Ended
from relay.observability import logs, redaction, tracing
from relay.protocol import operations
from relay.protocol.codec import Codec, Handshake, IncomingRequest
from relay.protocol.framing import CLOSE, FRAME_BYTES
from relay.protocol.operations import Reply
from relay.services.accounts import key_text
from relay.services.context import RequestContext, Services
from relay.sessions.outbox import Flusher, Outbox
from relay.sessions.session import Session
from relay.transport.websocket import Interrupted, ServerWebSocket, Traffic

if TYPE_CHECKING:
    from relay.observability.metrics import Metrics

log = structlog.get_logger()


class Connections:
    """Serves connections, each in its request's task."""

    def __init__(
        self,
        *,
        services: Services,
        dialects: Sequence[Codec],
        flusher: Flusher,
        metrics: "Metrics",
        outbox_bytes: int,
        handshake_seconds: float,
    ) -> None:
        """`dialects` are the protocol versions that are spoken; one of them has no subprotocol and is for the rest."""
        self._services = services
        self._dialects = {dialect.subprotocol: dialect for dialect in dialects}
        self._flusher = flusher
        self._metrics = metrics
        self._traffic = Traffic(metrics.received_bytes.inc, metrics.sent_bytes.inc)
        self._outbox_bytes = outbox_bytes
        self._handshake_seconds = handshake_seconds
        self._greeted: set[ServerWebSocket] = set()
        self._closed = False

    def turn_away(self) -> None:
        """Refuse whoever has not logged in yet: the node shuts down."""
        self._closed = True
        for socket in self._greeted:
            socket.interrupt()

    async def serve(self, request: web.Request, cluster: str, node: str) -> web.StreamResponse:
        """Serve one client from the upgrade to the close."""
        dialect = self._chosen(request)
        try:
            socket = await ServerWebSocket.accept(
                request, cluster, subprotocol=dialect.subprotocol, text=dialect.text, traffic=self._traffic
            )
        except ConnectionError:
            return web.Response(status=400)  # nobody is there to read it
        began = time.monotonic()
        try:
            with tracing.login():
                session = await self._log_in(socket, dialect, dialect.handshake(cluster, node))
        except Refusal as refusal:
            self._metrics.logins.labels(outcome=refusal.code.value).inc()
            why = redaction.unquoted(refusal.message)
            log.info("login.refused", code=refusal.code.value, reason=why, remote=request.remote)
            socket.write(dialect.login_refused(refusal))
        except _Gone as gone:
            self._metrics.logins.labels(outcome="gone").inc()
            log.debug("login.abandoned", reason=str(gone), remote=request.remote)
            socket.write(CLOSE)
        else:
            self._metrics.logins.labels(outcome="ok").inc()
            self._metrics.login_seconds.observe(time.monotonic() - began)
            await self._serve_session(socket, dialect, session)
        await socket.hang_up()
        return socket.response

    def _chosen(self, request: web.Request) -> Codec:
        """Return the protocol version that the client asks for; whoever asks for none that is known gets the first."""
        offers = ",".join(request.headers.getall("Sec-WebSocket-Protocol", ())).split(",")
        known = (self._dialects[offer.strip()] for offer in offers if offer.strip() in self._dialects)
        return next(known, self._dialects[None])

    async def _log_in(self, socket: ServerWebSocket, dialect: Codec, handshake: Handshake) -> Session:
        accounts = self._services.accounts
        claim = await self._shake_hands(socket, handshake)
        # From here on nothing of the peer's is waited for, so the handshake's deadline cannot hit a registration.
        if isinstance(claim, RegistrationClaim):
            await accounts.enroll(claim.user, claim.machine, claim.pubkey, claim.invite)
            user, machine = claim.user, claim.machine
            log.info("user.registered", user=user, machine=machine)
        else:
            user, machine = await accounts.authenticate(claim.pubkey)
        session = self._session(socket, dialect, SessionPath(user, machine, claim.session), claim.pubkey)
        await self._services.presence.open(session)
        socket.admit()
        session.outbox.open(dialect.login_accepted(session.path, admin=session.admin))
        return session

    def _session(self, socket: ServerWebSocket, dialect: Codec, path: SessionPath, pubkey: bytes) -> Session:
        def overflowed() -> None:
            session.close(CloseReason.SLOW_READER)

        session = Session(
            path=path,
            pubkey=key_text(pubkey),
            admin=self._services.accounts.is_admin(path.user, pubkey),
            connection=secrets.token_hex(8),
            encoder=dialect,
            outbox=Outbox(
                socket.transport,
                self._flusher,
                limit=self._outbox_bytes,
                on_overflow=overflowed,
                clock=asyncio.get_running_loop().time,
            ),
            interrupt=socket.interrupt,
            drained=socket.drained,
        )
        socket.on_progress = session.heard
        return session

    async def _shake_hands(self, socket: ServerWebSocket, handshake: Handshake) -> LoginClaim | RegistrationClaim:
        self._greeted.add(socket)
        try:
            async with asyncio.timeout(self._handshake_seconds):
                while True:
                    data = await socket.receive()
                    if data is None:
                        raise _Gone("closed during the handshake")
                    step = handshake.receive(data)
                    if isinstance(step, LoginClaim | RegistrationClaim):
                        return step
                    socket.write(step)
        except TimeoutError:
            raise timed_out() from None
        except Interrupted:
            raise self._why_interrupted(socket) from None
        except FrameError as error:
            raise Refusal(Code.MALFORMED, str(error)) from None
        finally:
            self._greeted.discard(socket)

    def _why_interrupted(self, socket: ServerWebSocket) -> Refusal:
        if self._closed:
            return Ended(CloseReason.SHUTDOWN)
        return socket.excess or timed_out()

    async def _serve_session(self, socket: ServerWebSocket, dialect: Codec, session: Session) -> None:
        logs.bind_session(session.path_text, session.connection)
        log.info("session.established")
        try:
            reason = await self._requests(socket, dialect, session)
        except Exception:
            log.exception("session.failed")
            reason = CloseReason.LOST
            raise
        finally:
            session.close(CloseReason.LOST)
            await self._services.presence.close(session)
        self._metrics.closes.labels(reason=reason.value).inc()
        log.info("session.closed", reason=reason.value)
        session.outbox.finish(session.encoder.closing(reason))

    async def _requests(self, socket: ServerWebSocket, dialect: Codec, session: Session) -> CloseReason:
        context = RequestContext(session, self._services)
        while session.close_reason is None:
            try:
                data = await socket.receive()
                request = None if data is None else dialect.decode_request(data)
            except Interrupted:
                continue
            except FrameError as error:
                log.info("session.malformed", error=redaction.unquoted(str(error)))
                return CloseReason.MALFORMED
            if request is None:
                return CloseReason.LEFT
            session.heard()
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
        try:
            reply = await operations.answer(context, request)
        except Refusal as refusal:
            self._metrics.refusals.labels(code=refusal.code.value).inc()
            log.debug("request.refused", code=refusal.code.value)
            return Reply(request.refused(refusal))
        except Exception:
            log.exception("request.failed")
            self._metrics.refusals.labels(code=Code.INTERNAL.value).inc()
            return Reply(request.refused(Refusal(Code.INTERNAL, "the relay failed to carry this out")))
        longest = min(FRAME_BYTES, self._outbox_bytes)
        if len(reply.frame) > longest:
            self._metrics.refusals.labels(code=Code.TOO_LARGE.value).inc()
            return Reply(request.refused(Refusal(Code.TOO_LARGE, f"the reply would exceed {longest} bytes")))
        return reply


class _Gone(ConclaveError):
    """The peer left before it logged in."""
