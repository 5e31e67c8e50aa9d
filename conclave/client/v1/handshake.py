"""The client's side of the v1 handshake, as a pure state machine: frames in, steps out; no socket, no clock."""

import msgspec

from conclave.errors import Code, Refusal
from conclave.model import PROTOCOL_VERSION
from conclave.protocol.credentials import Signer
from conclave.protocol.v1.errors import refusal
from conclave.protocol.v1.frames import Auth, Challenge, Error, Established, Frame, Hello, Register, Whisper, kind


class Send(msgspec.Struct, frozen=True):
    """Send these frames in this order, then read the next one."""

    frames: tuple[Frame, ...]


class ClientHandshake:
    """The handshake as a client goes through it, for a known machine or, with `register`, for a new user.

    ServerInfo is not part of it: it follows Established as an event.
    """

    def __init__(
        self,
        session: str,
        signer: Signer,
        register: tuple[str, str] | None = None,
        invite: str | None = None,
    ) -> None:
        """`register` is a username and a machine's name, `invite` what a relay may require for a registration."""
        self._session = session
        self._signer = signer
        self._register = register
        self._invite = invite
        self._challenged = False

    def hello(self) -> Hello:
        """Return the first frame of the client."""
        return Hello(PROTOCOL_VERSION, self._session)

    def receive(self, frame: Frame) -> Send | Established | Whisper:
        """Take the server's next frame and return the next step. Established ends the handshake.

        The original shows a session to others a moment before it sends Established, so a whisper may come first. It is
        returned for the caller to deliver.

        Raises:
            Refusal: the server's, or one of a frame that has no place in the handshake.
        """
        if isinstance(frame, Error):
            raise refusal(frame.error)
        if not self._challenged:
            if not isinstance(frame, Challenge):
                raise Refusal(Code.MALFORMED, f"expected a challenge, got {kind(frame)}")
            self._challenged = True
            return Send(self._proof(frame.nonce))
        if not isinstance(frame, Established | Whisper):
            raise Refusal(Code.MALFORMED, f"expected to be established, got {kind(frame)}")
        return frame

    def _proof(self, nonce: bytes) -> tuple[Frame, ...]:
        key = self._signer.public_key
        auth = Auth(key, self._signer.sign(nonce))
        if self._register is None:
            return (auth,)
        return (Register(*self._register, key, self._invite), auth)
