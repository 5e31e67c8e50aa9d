"""The v2 login of both sides, as pure state machines: messages in, messages or a result out; no socket, no storage.

Hello, challenge, then `auth` or `register`, then ready. A machine proves that it holds its key by an Ed25519 signature
over the protocol's name, the purpose, the server's cluster id, the origin that the client dialled, and the nonce. So
an answer to one server's challenge is worth nothing at another, whoever passes it on; and a client that knows a
server's cluster id does not answer another one at all.
"""

import re
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from typing import Literal, NoReturn, TypeVar

import msgspec
from nacl.exceptions import BadSignatureError
from nacl.signing import VerifyKey

from conclave import base64url, urls
from conclave.client.link_errors import ClosedLogin
from conclave.client.trust import check_cluster
from conclave.errors import Code, FrameError, InvalidName, Refusal
from conclave.machine.keys import InvalidKey, parse_public_key
from conclave.names import NameKind, check_name
from conclave.protocol.credentials import NONCE_BYTES, SIGNATURE_BYTES, LoginClaim, RegistrationClaim, Signer
from conclave.protocol.events import Closing
from conclave.protocol.v2.close_codes import CloseCode
from conclave.protocol.v2.codec import reason, refusal_of

PROTOCOL = 2
"""What a hello carries; compatibility is strict equality."""

_NO_LOGIN = "the server's messages are not those of a login"
_CLUSTER = re.compile(r"[!-~]{1,128}")

Purpose = Literal["auth", "register"]
T = TypeVar("T")


def signed_bytes(purpose: Purpose, cluster: str, origin: str, nonce: bytes) -> bytes:
    """Return what a machine signs: what for, at which server, dialled as what, and the server's nonce."""
    return f"conclave.v2\n{purpose}\n{cluster}\n{origin}\n".encode() + nonce


# --- The messages of a login ---


class Hello(msgspec.Struct, frozen=True, tag_field="op", tag="hello", omit_defaults=True):
    """The client's first word. `origin` is that of the dialled URL, `client` says what it is, for people."""

    protocol: int
    session: str
    origin: str
    client: str | None = None


class Challenge(msgspec.Struct, frozen=True, tag_field="ev", tag="challenge"):
    nonce: str
    cluster: str
    node: str


class Auth(msgspec.Struct, frozen=True, tag_field="op", tag="auth"):
    pubkey: str
    signature: str


class Register(msgspec.Struct, frozen=True, tag_field="op", tag="register", omit_defaults=True):
    """Claims a username for a key; `invite` is for relays that want one."""

    user: str
    machine: str
    pubkey: str
    signature: str
    invite: str | None = None


class Limits(msgspec.Struct, frozen=True):
    message_bytes: int


class Ready(msgspec.Struct, frozen=True, tag_field="ev", tag="ready"):
    """The session is logged in. `heartbeat` is after how many seconds of silence it should send a ping."""

    path: str
    admin: bool
    heartbeat: int
    limits: Limits


class _Opening(msgspec.Struct, frozen=True):
    """What hellos of all versions have in common."""

    protocol: int
    op: str


_encode = msgspec.json.Encoder().encode
_OPENING = msgspec.json.Decoder(_Opening)
_HELLO = msgspec.json.Decoder(Hello)
_PROOF: "msgspec.json.Decoder[Auth | Register]" = msgspec.json.Decoder(Auth | Register)
_STEP: "msgspec.json.Decoder[Challenge | Ready | Closing]" = msgspec.json.Decoder(Challenge | Ready | Closing)


# --- The server's side ---


class ServerLogin:
    """The login as a server conducts it with one peer. It ends with a claim, or with a Refusal."""

    def __init__(self, nonce: bytes, *, cluster: str, node: str, origins: AbstractSet[str]) -> None:
        """Take `NONCE_BYTES` fresh random bytes, who the server is, and its `urls.origin`s; none means any."""
        self._nonce = nonce
        self._cluster = cluster
        self._node = node
        self._origins = origins
        self._hello: Hello | None = None
        self._next: Callable[[bytes | str], bytes | LoginClaim | RegistrationClaim] = self._greet

    def receive(self, data: bytes | str) -> bytes | LoginClaim | RegistrationClaim:
        """Return what to send to the peer, or what it claims and has proven. All names are valid then.

        Raises:
            Refusal: the login is over.
        """
        receive, self._next = self._next, self._over
        return receive(data)

    def _greet(self, data: bytes | str) -> bytes:
        opening = _decoded(data, _OPENING, "a `hello`")
        if opening.op != "hello":
            _malformed("expected a `hello`")
        if opening.protocol != PROTOCOL:
            text = f"incompatible protocol version: ours={PROTOCOL}, theirs={opening.protocol}"
            raise Refusal(Code.VERSION, text)
        hello = _decoded(data, _HELLO, "a `hello`")
        _valid(NameKind.SESSION, hello.session)
        self._check_origin(hello.origin)
        self._hello = hello
        self._next = self._prove
        return _encode(Challenge(base64url.encode(self._nonce), self._cluster, self._node))

    def _check_origin(self, claimed: str) -> None:
        try:
            origin = urls.origin(claimed)
        except urls.InvalidUrl:
            _malformed(
                f"invalid origin `{claimed[:200]}` (expected `ws://host` or `wss://host`, with a port if needed)"
            )
        if self._origins and origin not in self._origins:
            known = ", ".join(f"`{each}`" for each in sorted(self._origins))
            raise Refusal(Code.UNAUTHORIZED, f"this relay is reached as {known}, not as `{origin[:200]}`")

    def _prove(self, data: bytes | str) -> LoginClaim | RegistrationClaim:
        proof = _decoded(data, _PROOF, "`auth` or `register`")
        pubkey = self._verified(proof)
        assert self._hello is not None  # noqa: S101 - _greet comes first
        session = self._hello.session
        if isinstance(proof, Auth):
            return LoginClaim(pubkey, session)
        user, machine = _valid(NameKind.USER, proof.user), _valid(NameKind.MACHINE, proof.machine)
        return RegistrationClaim(user, machine, pubkey, session, proof.invite)

    def _verified(self, proof: Auth | Register) -> bytes:
        """Return the key of a good proof."""
        try:
            pubkey = parse_public_key(proof.pubkey)
            signature = base64url.decode(proof.signature)
        except InvalidKey as error:
            _malformed(str(error))
        except ValueError as error:
            _malformed(f"malformed key or signature: {error}")
        if len(signature) != SIGNATURE_BYTES:
            _malformed(f"malformed key or signature: signature must be {SIGNATURE_BYTES} bytes")
        assert self._hello is not None  # noqa: S101 - as above
        purpose: Purpose = "auth" if isinstance(proof, Auth) else "register"
        try:
            VerifyKey(pubkey).verify(signed_bytes(purpose, self._cluster, self._hello.origin, self._nonce), signature)
        except BadSignatureError:
            raise Refusal(Code.UNAUTHORIZED, "signature verification failed") from None
        return pubkey

    def _over(self, _: bytes | str) -> NoReturn:
        _malformed("unexpected message during the login")


# --- The client's side ---


class ClientLogin:
    """The login as a client goes through it, for a known machine or, with `register`, for a new user."""

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
        """Take the URL that is dialled and the cluster id that is expected there, None if that is not known yet.

        `register` is a username and a machine's name. Raises: InvalidUrl.
        """
        self.origin = urls.origin(url)
        self._url = url
        self.cluster = ""
        """The server's cluster id, once it has said that."""
        self._session = session
        self._signer = signer
        self._client = client
        self._expected = expected_cluster
        self._register = register
        self._invite = invite

    def hello(self) -> bytes:
        """Return what the client opens with."""
        return hello(self._url, self._session, self._client)

    def receive(self, data: bytes | str) -> bytes | Ready:
        """Return what to send to the server; with Ready, the login is over.

        Raises:
            Refusal: what the server refused.
            NotTrusted: if it is another cluster than the expected one.
            FrameError: if it does not conduct a login.
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
    """Return what a client opens with. Raises: InvalidUrl."""
    return _encode(Hello(PROTOCOL, session, urls.origin(url), client))


def challenged_by(data: bytes | str) -> str:
    """Return the cluster id in a server's answer to the hello, for who wants to know no more than that.

    Raises:
        Refusal: what the server refused.
        FrameError: if that is no challenge.
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
    """Return the nonce of a challenge, once it is seen to be one that may be signed, for a cluster that has a name."""
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


def _decoded(data: bytes | str, decoder: "msgspec.json.Decoder[T]", what: str) -> T:
    try:
        return decoder.decode(data)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise Refusal(Code.MALFORMED, f"expected {what}: {reason(error)}") from None


def _malformed(message: str) -> NoReturn:
    raise Refusal(Code.MALFORMED, message)


def _valid(name_kind: NameKind, value: str) -> str:
    try:
        return check_name(name_kind, value)
    except InvalidName as error:
        raise Refusal(Code.MALFORMED, str(error)) from None
