"""The decoders of JSON from the network: both sides of protocol v2 and of its login."""

import json
import re
from pathlib import Path
from typing import Any

import msgspec
from nacl.signing import SigningKey

from conclave import base64url
from conclave.client.v2.login import ClientLogin
from conclave.errors import FrameError, Refusal
from conclave.machine.keys import MachineKey
from conclave.protocol import events, requests, v2
from conclave.protocol.credentials import LoginClaim, RegistrationClaim
from conclave.protocol.v2.login import Ready, signed_bytes
from conclave.protocol.v2.server_login import ServerLogin

PAGE = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text()
NONCE = bytes(32)
CLUSTER = "hu4xtmlt3pkqLbMOzOQVaGqBWgGI7A0c"
ORIGIN = "wss://relay.example"
BETWEEN = b"\n"
"""Separates the messages of a login in one input."""

_SHORT = 1000
"""An error's text is for people; it must not repeat all that was sent. In characters."""
_DEEP = 400
"""Beyond so many brackets, the two decoders may disagree about what is nested too deep."""
_LONGEST_ID = 2**53 - 1


def request(data: bytes) -> None:
    """A request that survives a round trip, or a refusal with the id of the object, or no object."""
    read = [_read(data)]
    try:
        read.append(_read(data.decode()))
    except UnicodeDecodeError:
        assert isinstance(read[0], FrameError)
    assert len({(type(each), getattr(each, "id", None)) for each in read}) == 1, f"bytes and text differ: {read}"
    result = read[0]
    if isinstance(result, v2.Incoming):
        written = v2.encode_request(result.id, result.request)
        assert v2.decode_request(written) == result, "what was read is not what is written"
    else:
        assert len(str(result)) < _SHORT
        assert v2.encode_error(getattr(result, "id", None), Refusal(v2.BadRequest(0, "").code, str(result)))
    _agrees(data, result)


def _read(data: bytes | str) -> v2.Incoming | v2.BadRequest | FrameError:
    try:
        return v2.decode_request(data)
    except (v2.BadRequest, FrameError) as error:
        return error


def _agrees(data: bytes, result: v2.Incoming | v2.BadRequest | FrameError) -> None:
    """Compare with the standard library: an object with an id is answered with that id."""
    if data.count(b"[") + data.count(b"{") > _DEEP:
        return
    try:
        value = json.loads(data.decode())
    except (ValueError, RecursionError):
        assert not isinstance(result, v2.Incoming)
        return
    assert isinstance(value, dict) != isinstance(result, FrameError), f"{value!r} is read as {result!r}"
    if isinstance(value, dict) and not isinstance(result, FrameError):
        number = value.get("id")
        usable = type(number) is int and abs(number) <= _LONGEST_ID
        assert result.id == (number if usable else None), f"{value!r} has the number {result.id}"


def message(data: bytes) -> None:
    """An event, a reply or a FrameError; the result of a reply is read or refused, whichever request it answers."""
    try:
        read = v2.decode_message(data)
    except FrameError:
        return
    if isinstance(read, events.Event):
        assert v2.decode_message(v2.encode_event(read)) == read
    if isinstance(read, v2.Reply):
        for type_ in requests.Request.__subclasses__():
            try:
                result: Any = v2.decode_result(read, type_)
            except (FrameError, Refusal):
                continue
            assert msgspec.json.decode(msgspec.json.encode(result), type=type(result)) == result


def server_login(data: bytes) -> None:
    """A login needs a valid signature; every error is a Refusal with a short text."""
    for login in (_server(), _server(greeted=True), _server(origins=frozenset({ORIGIN}))):
        step: object = None
        try:
            for part in data.split(BETWEEN):
                step = login.receive(_text(part))
        except Refusal as refusal:
            assert len(str(refusal)) < _SHORT  # noqa: PT017 - of whatever comes
            continue
        if isinstance(step, LoginClaim | RegistrationClaim):
            assert step.pubkey == KEY.public_key, "another key than the one of the seeds cannot have signed"


def _server(*, greeted: bool = False, origins: frozenset[str] = frozenset()) -> ServerLogin:
    login = ServerLogin(NONCE, cluster=CLUSTER, node="8c279b81cd60", origins=origins)
    if greeted:
        login.receive(HELLO)
    return login


def client_login(data: bytes) -> None:
    """A client answers one challenge at most; every error is a Refusal, or says that the messages are no login."""
    for register in (None, ("ann", "laptop")):
        login = ClientLogin(url=ORIGIN, session="razel", signer=KEY, client="fuzz", register=register)
        answers = 0
        try:
            for part in data.split(BETWEEN):
                step = login.receive(_text(part))
                answers += not isinstance(step, Ready)
        except (Refusal, FrameError):
            pass
        assert answers <= 1


def _text(part: bytes) -> str | bytes:
    """A WebSocket delivers text that is UTF-8; other input is passed as bytes."""
    try:
        return part.decode()
    except UnicodeDecodeError:
        return part


# --- Seeds ---


def _frames() -> list[Any]:
    return [
        json.loads(line) for block in re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()
    ]


def _encoded(*names: str) -> list[bytes]:
    """The examples of the page that have one of these fields."""
    return [
        json.dumps(frame, ensure_ascii=False).encode() for frame in _frames() if any(name in frame for name in names)
    ]


KEY = MachineKey(b"k" * 32)
HELLO = json.dumps({"op": "hello", "protocol": 2, "session": "razel", "origin": ORIGIN}).encode()
_SIGNED = base64url.encode(SigningKey(b"k" * 32).sign(signed_bytes("auth", CLUSTER, ORIGIN, NONCE)).signature)
_ENROLS = base64url.encode(SigningKey(b"k" * 32).sign(signed_bytes("register", CLUSTER, ORIGIN, NONCE)).signature)
_AUTH = json.dumps({"op": "auth", "pubkey": base64url.encode(KEY.public_key), "signature": _SIGNED}).encode()
_REGISTER = json.dumps(
    {
        "op": "register",
        "user": "ann",
        "machine": "laptop",
        "pubkey": base64url.encode(KEY.public_key),
        "signature": _ENROLS,
        "invite": "x",
    }
).encode()

_ODD = [
    b"",
    b"{}",
    b"[]",
    b'{"id":1,"op":"\\ud800"}',
    b'{"id":-0,"op":"ping"}',
    b'{"id":1,"id":2,"op":"ping"}',
    b'{"id":9007199254740992,"op":"ping"}',
    b'{"id":1.0,"op":"ping"}',
    b'{"id":1,"op":"ping","x":NaN}',
    b'{"id":1,"op":"ping","x":1e999}',
    b'\xef\xbb\xbf{"id":1,"op":"ping"}',
    '{"id":1,"op":"ping"}'.encode("utf-16"),
    b'{"id":1,"op":"audit","limit":' + b"9" * 5000 + b"}",
    b'{"id":1,"op":"channel.create","channel":"x","visibility":"' + b"x" * 3000 + b'"}',
    b'{"id":1,"op":"ping","x":' + b"[" * 3000 + b"]" * 3000 + b"}",
    b'{"op":"' + b"h" * 3000 + b'","protocol":2}',
]

REQUESTS = [*_encoded("op"), *_ODD]
MESSAGES = [*_encoded("re", "ev"), *_ODD, b'{"re":1,"error":null}', b'{"re":1,"error":{"code":"later","message":""}}']
SERVER_LOGINS = [
    HELLO + BETWEEN + _AUTH,
    HELLO + BETWEEN + _REGISTER,
    HELLO,
    _AUTH,
    *_ODD,
    HELLO.replace(b"relay.example", b"[::1]:99999"),
]
CLIENT_LOGINS = [
    BETWEEN.join(json.dumps(frame).encode() for frame in _frames() if frame.get("ev") in ("challenge", "ready")),
    *_encoded("ev"),
    *_ODD,
]
