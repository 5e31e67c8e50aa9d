"""The server's side of the v1 handshake, as a pure state machine: frames in, steps out; no socket, no storage.

The client sends Hello, the server Challenge, the client Auth (or Register and then Auth), the server Established. A
machine proves that it holds its key by an Ed25519 signature over exactly the nonce. That signature names neither the
server nor its purpose, so a rogue server can pass on another server's nonce and log in there with the answer. v1 cannot
prevent that.

A handshake that fails ends with a Refusal, which is raised. The server sends the frame for it
(`conclave.protocol.v1.errors.error_frame`) and closes, also after a message that is not a frame (`undecodable`).
"""

from collections.abc import Callable
from functools import partial
from typing import NoReturn

import msgspec
from nacl.exceptions import BadSignatureError
from nacl.signing import VerifyKey

from conclave.errors import Code, FrameError, Refusal, VersionRefusal
from conclave.model import PROTOCOL_VERSION
from conclave.names import NameKind, check_requested_name
from conclave.protocol.credentials import SIGNATURE_BYTES, LoginClaim, RegistrationClaim
from conclave.protocol.v1.frames import Auth, Challenge, Frame, Hello, Register
from conclave.public_key import KEY_BYTES


def undecodable(error: FrameError) -> Refusal:
    """Return the refusal of bytes that are not a frame of the protocol."""
    return Refusal(Code.MALFORMED, f"undecodable frame during the handshake: {error}")


class Reply(msgspec.Struct, frozen=True):
    """Send this frame, then read the next one."""

    frame: Challenge


class Continue(msgspec.Struct, frozen=True):
    """Nothing to send; read the next frame."""


Step = Reply | Continue | LoginClaim | RegistrationClaim


class ServerHandshake:
    """The handshake as a server conducts it with one client.

    It ends with LoginClaim or RegistrationClaim, or with a Refusal. A nonce is used for one attempt.
    """

    def __init__(self, nonce: bytes) -> None:
        """`nonce` is `NONCE_BYTES` fresh random bytes, for this connection only."""
        self._nonce = nonce
        self._session = ""
        self._next: Callable[[Frame], Step] = self._hello

    def receive(self, frame: Frame) -> Step:
        """Take the client's next frame and return the next step.

        Raises:
            Refusal: with the original's text. The checks are made in the original's order, except that the session
                handle is checked before anything is stored, with the other names, once the signature is verified.
        """
        receive, self._next = self._next, self._over
        return receive(frame)

    def _hello(self, frame: Frame) -> Reply:
        if not isinstance(frame, Hello):
            _malformed("expected Hello")
        if frame.protocol_version != PROTOCOL_VERSION:
            raise VersionRefusal(ours=PROTOCOL_VERSION, theirs=frame.protocol_version)
        self._session = frame.session
        self._next = self._register_or_auth
        return Reply(Challenge(self._nonce))

    def _register_or_auth(self, frame: Frame) -> Continue | LoginClaim:
        if isinstance(frame, Register):
            self._next = partial(self._auth_after_register, frame)
            return Continue()
        if not isinstance(frame, Auth):
            _malformed("expected Register or Auth")
        self._verify(frame)
        return LoginClaim(frame.pubkey, check_requested_name(NameKind.SESSION, self._session))

    def _auth_after_register(self, claim: Register, frame: Frame) -> RegistrationClaim:
        if not isinstance(frame, Auth):
            _malformed("expected Auth after Register")
        if frame.pubkey != claim.pubkey:
            raise Refusal(Code.UNAUTHORIZED, "auth key does not match the registered key")
        self._verify(frame)
        return RegistrationClaim(
            user=check_requested_name(NameKind.USER, claim.username),
            machine=check_requested_name(NameKind.MACHINE, claim.machine),
            pubkey=frame.pubkey,
            session=check_requested_name(NameKind.SESSION, self._session),
            invite=claim.invite,
        )

    def _over(self, _: Frame) -> NoReturn:
        _malformed("unexpected frame from client")

    def _verify(self, proof: Auth) -> None:
        if len(proof.pubkey) != KEY_BYTES:
            _malformed(f"malformed key or signature: public key must be {KEY_BYTES} bytes")
        if len(proof.signature) != SIGNATURE_BYTES:
            _malformed(f"malformed key or signature: signature must be {SIGNATURE_BYTES} bytes")
        try:
            VerifyKey(proof.pubkey).verify(self._nonce, proof.signature)
        except BadSignatureError:
            raise Refusal(Code.UNAUTHORIZED, "signature verification failed") from None


def _malformed(message: str) -> NoReturn:
    raise Refusal(Code.MALFORMED, message)
