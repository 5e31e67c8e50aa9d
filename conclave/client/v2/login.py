"""The client's side of the v2 login, pure: messages in, messages or the session out."""

import re

import msgspec

from conclave import __version__, base64url, urls
from conclave.client.login import LoggedIn
from conclave.client.trust import check_cluster
from conclave.client.v2.exchange import V2Exchange
from conclave.errors import ClosedLogin, Code, FrameError, Refusal
from conclave.protocol.credentials import NONCE_BYTES, Signer
from conclave.protocol.events import Closing, Role
from conclave.protocol.v2.close_codes import CloseCode
from conclave.protocol.v2.codec import refusal_of
from conclave.protocol.v2.login import PROTOCOL, Auth, Challenge, Hello, Purpose, Ready, Register, signed_bytes

CLIENT = f"conclave/{__version__}"

_NO_LOGIN = "the server's messages are not those of a login"
_CLUSTER = re.compile(r"[!-~]{1,128}")

_encode = msgspec.json.Encoder().encode
_STEP: "msgspec.json.Decoder[Challenge | Ready | Closing]" = msgspec.json.Decoder(Challenge | Ready | Closing)


class Greeting:
    """The first step of a login, which tells the cluster's id. It signs nothing; see `conclave.client.login.Login`."""

    def __init__(self, url: str, session: str) -> None:
        self._url = url
        self._session = session

    def opening(self) -> bytes:
        return hello(self._url, self._session, CLIENT)

    def receive(self, data: bytes) -> tuple[bytes, ...] | str:
        return challenged_by(data)


class V2Login:
    """The login of a known machine or, with `register`, of a new user; see `conclave.client.login.Login`."""

    def __init__(
        self,
        url: str,
        session: str,
        key: Signer,
        *,
        register: tuple[str, str] | None,
        invite: str | None,
        cluster: str | None,
    ) -> None:
        """Take the dialled URL and the cluster id that is expected there, None if any may answer."""
        self._login = ClientLogin(
            url=url,
            session=session,
            signer=key,
            client=CLIENT,
            expected_cluster=cluster,
            register=register,
            invite=invite,
        )

    def opening(self) -> bytes:
        return self._login.hello()

    def receive(self, data: bytes) -> tuple[bytes, ...] | LoggedIn:
        step = self._login.receive(data)
        if isinstance(step, bytes):
            return (step,)
        role = Role(step.admin)
        return LoggedIn(2, step.path, (role,), V2Exchange(), cluster=self._login.cluster, heartbeat=step.heartbeat)


class ClientLogin:
    """The client's side of the login as a state machine, for a known machine or, with `register`, for a new user."""

    def __init__(
        self,
        *,
        url: str,
        session: str,
        signer: Signer,
        client: str,
        expected_cluster: str | None = None,
        register: tuple[str, str] | None = None,
        invite: str | None = None,
    ) -> None:
        """Take the dialled URL and the cluster id that is expected there, None if it is not known yet.

        `register` is a username and a machine's name. Raises: InvalidUrl.
        """
        self.origin = urls.origin(url)
        self._url = url
        self.cluster = ""
        """The server's cluster id; empty before the challenge."""
        self._session = session
        self._signer = signer
        self._client = client
        self._expected = expected_cluster
        self._register = register
        self._invite = invite

    def hello(self) -> bytes:
        """Return the client's first message."""
        return hello(self._url, self._session, self._client)

    def receive(self, data: bytes | str) -> bytes | Ready:
        """Return the answer to a message of the server, or Ready, which ends the login.

        Raises:
            Refusal: if the server refused the login.
            NotTrusted: if it is another cluster than the expected one.
            FrameError: if the message does not belong to a login.
        """
        message = _step(data)
        if isinstance(message, Challenge) and not self.cluster:
            return self._answer(message)
        if isinstance(message, Challenge) or not self.cluster:
            raise FrameError(_NO_LOGIN)
        return message

    def _answer(self, challenge: Challenge) -> bytes:
        nonce = _nonce(challenge)
        if self._expected is not None:
            check_cluster(self._url, self._expected, challenge.cluster)
        self.cluster = challenge.cluster
        purpose: Purpose = "auth" if self._register is None else "register"
        signature = self._signer.sign(signed_bytes(purpose, challenge.cluster, self.origin, nonce))
        key, proof = base64url.encode(self._signer.public_key), base64url.encode(signature)
        if self._register is None:
            return _encode(Auth(key, proof))
        return _encode(Register(*self._register, key, proof, self._invite))


def hello(url: str, session: str, client: str) -> bytes:
    """Return a client's first message. Raises: InvalidUrl."""
    return _encode(Hello(PROTOCOL, session, urls.origin(url), client))


def challenged_by(data: bytes | str) -> str:
    """Return the cluster id in a server's answer to the hello.

    Raises:
        Refusal: if the server refused the login.
        FrameError: if the answer is not a challenge.
    """
    step = _step(data)
    if not isinstance(step, Challenge):
        raise FrameError(_NO_LOGIN)
    _nonce(step)
    return step.cluster


def _step(data: bytes | str) -> Challenge | Ready:
    try:
        step = _STEP.decode(data)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise FrameError(f"expected a step of the login: {error}") from None
    if isinstance(step, Closing):
        raise ClosedLogin(_login_refusal(step), step.code)
    return step


def _nonce(challenge: Challenge) -> bytes:
    """Return the nonce of a challenge, after a check that it and the cluster's id may be signed. Raises: FrameError."""
    if not _CLUSTER.fullmatch(challenge.cluster):
        raise FrameError("invalid cluster id: up to 128 letters, digits and signs are expected")
    try:
        nonce = base64url.decode(challenge.nonce)
    except ValueError as error:
        raise FrameError(f"invalid nonce: {error}") from None
    if len(nonce) != NONCE_BYTES:
        raise FrameError(f"invalid nonce: {NONCE_BYTES} bytes are expected")
    return nonce


_REFUSED_WITH: dict[int, Code] = {
    CloseCode.MALFORMED: Code.MALFORMED,
    CloseCode.LATER: Code.UNAVAILABLE,
    CloseCode.RESTART: Code.UNAVAILABLE,
    CloseCode.INTERNAL: Code.INTERNAL,
}


def _login_refusal(closing: Closing) -> Refusal:
    code = closing.error or _REFUSED_WITH.get(closing.code, Code.UNAUTHORIZED).value
    return refusal_of(code, closing.reason, closing.retry_after)
