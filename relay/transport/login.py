"""The login of one connection: the handshake, the proof's owner, and the session that becomes present.

A login ends in exactly one of three ways, and each is counted: the session is present; the client was refused and told
why; the client left. A defect of the relay is a refusal with the code `internal`.
"""

import asyncio
import secrets
import time
from collections.abc import Callable

import structlog

from conclave.errors import Code, ConclaveError, FrameError, Refusal, WrongUrl
from conclave.model import SessionPath
from conclave.protocol.credentials import LoginClaim, RegistrationClaim, timed_out
from relay.model.close_reason import CloseReason, Ended
from relay.observability import redaction, tracing
from relay.observability.metrics import WRONG_URL, Metrics
from relay.protocol.codec import Codec, Handshake, Received
from relay.protocol.framing import CLOSE
from relay.services.accounts import key_text
from relay.services.context import Services
from relay.sessions.outbox import Flusher, Outbox
from relay.sessions.session import Session
from relay.transport.websocket import Interrupted, ServerWebSocket

log = structlog.get_logger()

_AT_ONCE = 16
"""The number of logins that are carried out at a time. When thousands of clients come back, the others wait for their
turn, and the sessions that are there keep being served.

A login waits for two round trips: with a Redis that answers within 5 ms these are 1,600 a second, more than a core
carries out. What is more than that only delays others."""


class Logins:
    """Conducts the logins of one node."""

    def __init__(
        self,
        *,
        services: Services,
        flusher: Flusher,
        metrics: Metrics,
        outbox_bytes: int,
        handshake_seconds: float,
    ) -> None:
        """`outbox_bytes` bounds the outbox of every session, `handshake_seconds` the wait for the client's proof."""
        self._accounts = services.accounts
        self._presence = services.presence
        self._flusher = flusher
        self._metrics = metrics
        self._outbox_bytes = outbox_bytes
        self._handshake_seconds = handshake_seconds
        self._turns = asyncio.Semaphore(_AT_ONCE)
        self._in_handshake: set[ServerWebSocket] = set()
        self._closed = False

    def refuse_all(self) -> None:
        """Refuse the logins that are under way, and all that follow: the node shuts down."""
        self._closed = True
        for socket in self._in_handshake:
            socket.interrupt()

    async def log_in(
        self, socket: ServerWebSocket, codec: Codec, begin: Callable[[], Handshake], *, remote: str | None
    ) -> Session | None:
        """Conduct one login; `begin` makes its handshake.

        Returns a session that is present, whose outbox is still held; None if there is none.

        The caller accepts the login (`accept`), and closes the session in any case. A client without a session has
        been told why, and only the close of its socket is left to do.
        """
        began = time.monotonic()
        try:
            with tracing.login():
                session = await self._session(socket, codec, begin())
        except Refusal as refusal:
            self._refuse(socket, codec, refusal, remote)
        except _ClientLeft as left:
            log.debug("login.abandoned", reason=str(left), remote=remote)
            self._end(socket, "gone", CLOSE)
        except Exception:
            log.exception("login.failed", remote=remote)
            defect = Refusal(Code.INTERNAL, "the relay failed to carry this out")
            self._end(socket, defect.code.value, codec.login_refused(defect))
        else:
            self._metrics.logins.labels(outcome="ok").inc()
            self._metrics.login_seconds.observe(time.monotonic() - began)
            return session
        return None

    def _refuse(self, socket: ServerWebSocket, codec: Codec, refusal: Refusal, remote: str | None) -> None:
        """Log a refusal without what the client sent; of a wrong address, with the node's own setting."""
        why = redaction.redact_quotes(refusal.message)
        of_wrong_url = {"public_urls": list(refusal.known)} if isinstance(refusal, WrongUrl) else {}
        log.info("login.refused", code=refusal.code.value, reason=why, remote=remote, **of_wrong_url)
        self._end(socket, WRONG_URL if of_wrong_url else refusal.code.value, codec.login_refused(refusal))

    def _end(self, socket: ServerWebSocket, outcome: str, last_frames: bytes) -> None:
        self._metrics.logins.labels(outcome=outcome).inc()
        socket.write(socket.closing_frame(last_frames))

    async def _session(self, socket: ServerWebSocket, codec: Codec, handshake: Handshake) -> Session:
        deadline = asyncio.get_running_loop().time() + self._handshake_seconds
        while True:
            data = await self._receive(socket, deadline)
            # From here on the client is not waited for, so the deadline cannot cut a registration off.
            async with self._turns:
                step = handshake.receive(data)
                if isinstance(step, LoginClaim | RegistrationClaim):
                    return await self._open(socket, codec, step)
            socket.write(step)

    async def _receive(self, socket: ServerWebSocket, deadline: float) -> Received:
        """Return the client's next message. Raises: Refusal, _ClientLeft."""
        self._in_handshake.add(socket)
        try:
            async with asyncio.timeout_at(deadline):
                data = await socket.receive()
        except TimeoutError:
            raise timed_out() from None
        except Interrupted:
            raise self._why_interrupted(socket) from None
        except FrameError as error:
            raise Refusal(Code.MALFORMED, str(error)) from None
        finally:
            self._in_handshake.discard(socket)
        if data is None:
            raise _ClientLeft("closed during the handshake")
        return data

    async def _open(self, socket: ServerWebSocket, codec: Codec, claim: LoginClaim | RegistrationClaim) -> Session:
        if isinstance(claim, RegistrationClaim):
            await self._accounts.enroll(claim.user, claim.machine, claim.pubkey, claim.invite)
            user, machine = claim.user, claim.machine
            log.info("user.registered", user=user, machine=machine)
        else:
            user, machine = await self._accounts.authenticate(claim.pubkey)
        session = self._new_session(socket, codec, SessionPath(user, machine, claim.session), claim.pubkey)
        await self._presence.open(session)
        return session

    def _why_interrupted(self, socket: ServerWebSocket) -> Refusal:
        if self._closed:
            return Ended(CloseReason.SHUTDOWN)
        return socket.excess or timed_out()

    def _new_session(self, socket: ServerWebSocket, codec: Codec, path: SessionPath, pubkey: bytes) -> Session:
        def overflowed() -> None:
            session.close(CloseReason.SLOW_READER)

        def progressed() -> None:
            session.last_activity = clock()

        clock = asyncio.get_running_loop().time
        session = Session(
            path=path,
            pubkey=key_text(pubkey),
            admin=self._accounts.is_admin(path.user, pubkey),
            connection=secrets.token_hex(8),
            encoder=codec,
            outbox=Outbox(
                socket.transport,
                self._flusher,
                limit=self._outbox_bytes,
                on_overflow=overflowed,
            ),
            interrupt=socket.interrupt,
            drained=socket.drained,
        )
        socket.on_progress = progressed
        return session


class _ClientLeft(ConclaveError):
    """The client closed its connection before it had proven a key."""


def accept(socket: ServerWebSocket, codec: Codec, session: Session) -> None:
    """Answer a login that succeeded, and lift the limits on a client that has not logged in."""
    socket.lift_limits()
    session.outbox.open(codec.login_accepted(session.path, admin=session.admin))
