"""The client's side of the v1 login: the handshake, with its frames encoded and decoded."""

from conclave.client.login import LoggedIn
from conclave.client.v1.exchange import V1Exchange
from conclave.client.v1.handshake import ClientHandshake, Send
from conclave.errors import LinkError, Refusal
from conclave.protocol.credentials import Signer
from conclave.protocol.events import Whispered
from conclave.protocol.v1.bodies import body_of
from conclave.protocol.v1.codec import decode, encode
from conclave.protocol.v1.errors import refusal
from conclave.protocol.v1.frames import Error, Established, Frame, Whisper


class V1Login:
    """The login of a known machine or, with `register`, of a new user; see `conclave.client.login.Login`."""

    def __init__(self, session: str, key: Signer, register: tuple[str, str] | None, invite: str | None) -> None:
        self._handshake = ClientHandshake(session, key, register, invite)
        self._early: list[Whispered] = []

    def opening(self) -> bytes:
        return encode(self._handshake.hello())

    def receive(self, data: bytes) -> tuple[bytes, ...] | LoggedIn:
        frame = decode(data)
        if isinstance(frame, Error):
            raise refusal(frame.error)
        step = self._next_step(frame)
        if isinstance(step, Send):
            return tuple(map(encode, step.frames))
        if isinstance(step, Whisper):
            self._early.append(Whispered(from_=str(step.from_), body=body_of(step.payload)))
            return ()
        return LoggedIn(1, str(step.path), tuple(self._early), V1Exchange(step.path))

    def _next_step(self, frame: Frame) -> Send | Established | Whisper:
        """Advance the handshake; a frame that does not belong to it is a fault of the server, not its refusal."""
        try:
            return self._handshake.receive(frame)
        except Refusal as error:
            raise LinkError(error.message) from error
