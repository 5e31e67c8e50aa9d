"""The v1 handshake: every refusal with its text, the order of the checks, and both sides against each other."""

import contextlib

import pytest
from nacl.signing import SigningKey

from conclave.client.v1.handshake import ClientHandshake, Send
from conclave.errors import Code, FrameError, Refusal
from conclave.model import Plain, SessionPath
from conclave.protocol import v1
from conclave.protocol.credentials import LoginClaim, RegistrationClaim, timed_out, unknown_key
from conclave.protocol.v1.errors import error_frame
from conclave.protocol.v1.frames import (
    Auth,
    Challenge,
    Error,
    Established,
    Frame,
    Hello,
    Internal,
    MalformedFrame,
    Ping,
    ProtocolError,
    Register,
    ServerInfo,
    Unauthorized,
    VersionMismatch,
    Whisper,
)
from conclave.protocol.v1.server_handshake import Continue, Reply, ServerHandshake, undecodable

NONCE = bytes(range(32))
KEY = SigningKey(b"k" * 32)
OTHER = SigningKey(b"o" * 32)
PUBLIC = KEY.verify_key.encode()
HELLO = Hello(1, "dev")
REGISTER = Register("alice", "laptop", PUBLIC)
SIGNATURE = KEY.sign(NONCE).signature
AUTH = Auth(PUBLIC, SIGNATURE)
FORGED = Auth(PUBLIC, OTHER.sign(NONCE).signature)


class _Key:
    """A signer as the key file provides it."""

    public_key = PUBLIC

    def sign(self, message: bytes) -> bytes:
        return KEY.sign(message).signature


def _run(*frames: Frame) -> LoginClaim | RegistrationClaim:
    """Feed frames of which the last one ends the handshake; the ones before it must not."""
    handshake = ServerHandshake(NONCE)
    *first, last = frames
    for frame in first:
        assert isinstance(handshake.receive(frame), Reply | Continue)
    end = handshake.receive(last)
    assert isinstance(end, LoginClaim | RegistrationClaim)
    return end


# --- The server's side ---


def test_a_known_machine_logs_in() -> None:
    """Hello is answered by the nonce; a valid Auth gives the key and the handle, and no user."""
    handshake = ServerHandshake(NONCE)
    assert handshake.receive(HELLO) == Reply(Challenge(NONCE))
    assert handshake.receive(AUTH) == LoginClaim(PUBLIC, "dev")


def test_a_new_user_enrolls() -> None:
    """Register gets no answer of its own; the proof behind it gives everything that is to be stored."""
    handshake = ServerHandshake(NONCE)
    handshake.receive(HELLO)
    assert handshake.receive(REGISTER) == Continue()
    assert handshake.receive(AUTH) == RegistrationClaim("alice", "laptop", PUBLIC, "dev")


SHORT_KEY = "malformed key or signature: public key must be 32 bytes"
SHORT_SIGNATURE = "malformed key or signature: signature must be 64 bytes"
FAILED = "signature verification failed"
EMPTY = "it must not be empty"
SLASH = "it must not contain `/`"

REFUSED: list[tuple[str, tuple[Frame, ...], ProtocolError]] = [
    ("ping first", (Ping(),), MalformedFrame("expected Hello")),
    ("auth first", (AUTH,), MalformedFrame("expected Hello")),
    ("version 0", (Hello(0, "dev"),), VersionMismatch(ours=1, theirs=0)),
    ("version 2, bad handle", (Hello(2, ""),), VersionMismatch(ours=1, theirs=2)),
    ("second hello", (HELLO, HELLO), MalformedFrame("expected Register or Auth")),
    ("ping second", (HELLO, Ping()), MalformedFrame("expected Register or Auth")),
    ("ping after register", (HELLO, REGISTER, Ping()), MalformedFrame("expected Auth after Register")),
    ("register twice", (HELLO, REGISTER, REGISTER), MalformedFrame("expected Auth after Register")),
    ("empty key", (HELLO, Auth(b"", SIGNATURE)), MalformedFrame(SHORT_KEY)),
    ("long key", (HELLO, Auth(PUBLIC + b"x", SIGNATURE)), MalformedFrame(SHORT_KEY)),
    ("key before signature length", (HELLO, Auth(b"x", b"x")), MalformedFrame(SHORT_KEY)),
    ("short signature", (HELLO, Auth(PUBLIC, b"x" * 63)), MalformedFrame(SHORT_SIGNATURE)),
    ("long signature", (HELLO, Auth(PUBLIC, SIGNATURE + b"x")), MalformedFrame(SHORT_SIGNATURE)),
    ("another key's signature", (HELLO, FORGED), Unauthorized(FAILED)),
    ("another nonce", (HELLO, Auth(PUBLIC, KEY.sign(b"n" * 32).signature)), Unauthorized(FAILED)),
    ("no point of the curve", (HELLO, Auth(b"\xff" * 32, SIGNATURE)), Unauthorized(FAILED)),
    ("key of small order", (HELLO, Auth(b"\x01" + bytes(31), b"\x01" + bytes(63))), Unauthorized(FAILED)),
    (
        "another key than registered, before the signature",
        (HELLO, Register("alice", "laptop", OTHER.verify_key.encode()), FORGED),
        Unauthorized("auth key does not match the registered key"),
    ),
    (
        "another key than registered, before its length",
        (HELLO, REGISTER, Auth(b"x", b"x")),
        Unauthorized("auth key does not match the registered key"),
    ),
    ("short key, registered", (HELLO, Register("a", "b", b"x"), Auth(b"x", SIGNATURE)), MalformedFrame(SHORT_KEY)),
    ("forged, registered", (HELLO, REGISTER, FORGED), Unauthorized(FAILED)),
    ("forged before names", (Hello(1, ""), Register("", "", PUBLIC), FORGED), Unauthorized(FAILED)),
    ("forged before the handle", (Hello(1, ""), FORGED), Unauthorized(FAILED)),
    ("empty handle", (Hello(1, ""), AUTH), MalformedFrame(f"invalid session handle: `` ({EMPTY})")),
    ("handle with a slash", (Hello(1, "a/b"), AUTH), MalformedFrame(f"invalid session handle: `a/b` ({SLASH})")),
    (
        "empty handle, registered",
        (Hello(1, ""), REGISTER, AUTH),
        MalformedFrame(f"invalid session handle: `` ({EMPTY})"),
    ),
    (
        "username before the others",
        (Hello(1, ""), Register("a/b", "", PUBLIC), AUTH),
        MalformedFrame(f"invalid username: `a/b` ({SLASH})"),
    ),
    (
        "machine before the handle",
        (Hello(1, ""), Register("alice", "", PUBLIC), AUTH),
        MalformedFrame(f"invalid machine name: `` ({EMPTY})"),
    ),
    (
        "a name that spoofs a terminal",
        (HELLO, Register("al\x1b[2Kice", "laptop", PUBLIC), AUTH),
        MalformedFrame("invalid username: `al\x1b[2Kice` (it must consist of visible characters)"),
    ),
]


@pytest.mark.parametrize(("frames", "error"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_refusals_and_their_order(frames: tuple[Frame, ...], error: ProtocolError) -> None:
    """Each refusal has the original's kind and text, comes in answer to the last frame, and in this order of checks.

    Nothing is returned that could be stored before every check has passed, the session handle's included.
    """
    with pytest.raises(Refusal) as caught:
        _run(*frames)
    assert error_frame(caught.value) == Error(error)


@pytest.mark.parametrize("frames", [(Ping(),), (HELLO, FORGED), (HELLO, REGISTER, FORGED), (HELLO, AUTH)])
def test_nothing_goes_on_after_the_end(frames: tuple[Frame, ...]) -> None:
    """A nonce serves one attempt: after a refusal or a login a valid Auth is not even looked at."""
    handshake = ServerHandshake(NONCE)
    for frame in frames[:-1]:
        handshake.receive(frame)
    with contextlib.suppress(Refusal):
        handshake.receive(frames[-1])
    with pytest.raises(Refusal, match=r"^unexpected frame from client$"):
        handshake.receive(AUTH)


def test_refusals_from_around_the_state_machine() -> None:
    """The deadline and the directory refuse with the original's texts."""
    assert error_frame(timed_out()) == Error(Unauthorized("handshake timed out"))
    assert error_frame(unknown_key()) == Error(Unauthorized("unknown machine key"))
    assert undecodable(FrameError("why")).message == "undecodable frame during the handshake: why"


# --- The client's side ---


def test_a_client_signs_what_it_is_given() -> None:
    """The signature covers exactly the nonce, however long it is."""
    for nonce in (b"", b"n", NONCE, b"n" * 1000):
        step = ClientHandshake("dev", _Key()).receive(Challenge(nonce))
        assert step == Send((Auth(PUBLIC, KEY.sign(nonce).signature),))


def test_a_client_opens_with_hello() -> None:
    """The client speaks first, with its version and its handle."""
    assert ClientHandshake("dev", _Key()).hello() == Hello(1, "dev")


def test_an_early_whisper_is_not_fatal() -> None:
    """An original server may whisper before Established; the whisper is handed on and the handshake goes on."""
    path = SessionPath("alice", "laptop", "dev")
    whisper = Whisper(path, path, Plain("hi"))
    client = ClientHandshake("dev", _Key())
    client.receive(Challenge(NONCE))
    assert client.receive(whisper) == whisper
    assert client.receive(Established(path)) == Established(path)


@pytest.mark.parametrize("challenged", [False, True])
@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (VersionMismatch(1, 2), Code.VERSION, "incompatible protocol version: ours=1, theirs=2"),
        (MalformedFrame("m"), Code.MALFORMED, "m"),
        (Unauthorized("unknown machine key"), Code.UNAUTHORIZED, "unknown machine key"),
        (Internal("m"), Code.INTERNAL, "m"),
    ],
)
def test_a_client_passes_refusals_on(challenged: bool, error: ProtocolError, code: Code, message: str) -> None:
    """At any point a server's Error ends the handshake, with its text in clear and not in a description of frames."""
    client = ClientHandshake("dev", _Key())
    if challenged:
        client.receive(Challenge(NONCE))
    with pytest.raises(Refusal) as caught:
        client.receive(Error(error))
    assert (caught.value.code, caught.value.message) == (code, message)


def test_a_client_expects_frames_in_order() -> None:
    """A server that skips the challenge, repeats it or sends other frames is refused."""
    path = SessionPath("alice", "laptop", "dev")
    early: list[tuple[Frame, str]] = [(Established(path), "established"), (ServerInfo(admin=True), "server_info")]
    for frame, kind in early:
        with pytest.raises(Refusal, match=f"^expected a challenge, got {kind}$"):
            ClientHandshake("dev", _Key()).receive(frame)
    client = ClientHandshake("dev", _Key())
    client.receive(Challenge(NONCE))
    with pytest.raises(Refusal, match=r"^expected to be established, got challenge$"):
        client.receive(Challenge(NONCE))


# --- Both sides, over the wire ---


@pytest.mark.parametrize(
    ("register", "end"),
    [(None, LoginClaim(PUBLIC, "dev")), (("alice", "laptop"), RegistrationClaim("alice", "laptop", PUBLIC, "dev"))],
)
def test_both_sides_agree(register: tuple[str, str] | None, end: LoginClaim | RegistrationClaim) -> None:
    """Our client's bytes log in at our server, with and without registering."""
    server, client = ServerHandshake(NONCE), ClientHandshake("dev", _Key(), register)
    step = server.receive(v1.decode(v1.encode(client.hello())))
    assert isinstance(step, Reply)
    answer = client.receive(v1.decode(v1.encode(step.frame)))
    assert isinstance(answer, Send)
    steps = [server.receive(v1.decode(v1.encode(frame))) for frame in answer.frames]
    assert steps[-1] == end
    assert steps[:-1] == ([] if register is None else [Continue()])
    established = Established(SessionPath("alice", "laptop", "dev"))
    assert client.receive(established) == established
