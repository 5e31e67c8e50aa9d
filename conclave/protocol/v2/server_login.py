"""The server's side of the v2 login, as a pure state machine: messages in, messages or a claim out; no socket."""

from collections.abc import Callable
from collections.abc import Set as AbstractSet
from typing import NoReturn, TypeVar

import msgspec
from nacl.exceptions import BadSignatureError
from nacl.signing import VerifyKey

from conclave import base64url, urls
from conclave.errors import Code, InvalidKey, InvalidUrl, Refusal, VersionRefusal, WrongUrl
from conclave.names import NameKind, check_requested_name
from conclave.protocol.credentials import SIGNATURE_BYTES, LoginClaim, RegistrationClaim
from conclave.protocol.v2.codec import reason
from conclave.protocol.v2.login import PROTOCOL, Auth, Challenge, Hello, Purpose, Register, signed_bytes
from conclave.public_key import parse_public_key

T = TypeVar("T")


class _Opening(msgspec.Struct, frozen=True):
    """The fields that the hellos of all versions have."""

    protocol: int
    op: str


_encode = msgspec.json.Encoder().encode
_OPENING = msgspec.json.Decoder(_Opening)
_HELLO = msgspec.json.Decoder(Hello)
_PROOF: "msgspec.json.Decoder[Auth | Register]" = msgspec.json.Decoder(Auth | Register)


class ServerLogin:
    """The login as a server conducts it with one client. It ends with a claim, or with a Refusal."""

    def __init__(self, nonce: bytes, *, cluster: str, node: str, origins: AbstractSet[str]) -> None:
        """`nonce` is `NONCE_BYTES` fresh random bytes, `origins` the server's own (`urls.origin`); none means any."""
        self._nonce = nonce
        self._cluster = cluster
        self._node = node
        self._origins = origins
        self._hello: Hello | None = None
        self._next: Callable[[bytes | str], bytes | LoginClaim | RegistrationClaim] = self._greet

    def receive(self, data: bytes | str) -> bytes | LoginClaim | RegistrationClaim:
        """Return the message for the client, or the claim that it has proven. All names in a claim are valid.

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
            raise VersionRefusal(PROTOCOL, opening.protocol)
        hello = _decoded(data, _HELLO, "a `hello`")
        check_requested_name(NameKind.SESSION, hello.session)
        self._check_origin(hello.origin)
        self._hello = hello
        self._next = self._prove
        return _encode(Challenge(base64url.encode(self._nonce), self._cluster, self._node))

    def _check_origin(self, claimed: str) -> None:
        try:
            origin = urls.origin(claimed)
        except InvalidUrl:
            _malformed(
                f"invalid origin `{claimed[:200]}` (expected `ws://host` or `wss://host`, with a port if needed)"
            )
        if self._origins and origin not in self._origins:
            raise WrongUrl(tuple(sorted(self._origins)), origin)

    def _prove(self, data: bytes | str) -> LoginClaim | RegistrationClaim:
        proof = _decoded(data, _PROOF, "`auth` or `register`")
        pubkey = self._verified(proof)
        assert self._hello is not None  # noqa: S101 - _greet comes first
        session = self._hello.session
        if isinstance(proof, Auth):
            return LoginClaim(pubkey, session)
        user = check_requested_name(NameKind.USER, proof.user)
        machine = check_requested_name(NameKind.MACHINE, proof.machine)
        return RegistrationClaim(user, machine, pubkey, session, proof.invite)

    def _verified(self, proof: Auth | Register) -> bytes:
        """Return the key of a valid proof. Raises: Refusal."""
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


def _decoded(data: bytes | str, decoder: "msgspec.json.Decoder[T]", what: str) -> T:
    try:
        return decoder.decode(data)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise Refusal(Code.MALFORMED, f"expected {what}: {reason(error)}") from None


def _malformed(message: str) -> NoReturn:
    raise Refusal(Code.MALFORMED, message)
