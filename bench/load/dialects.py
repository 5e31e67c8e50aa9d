"""The protocols that a load speaks: what a session sends to be in a channel, and the frames of its posts.

A conversation is a generator: it yields the bytes to send, and is sent the next message of the server. It starts with
the response to the upgrade. So it needs no socket, and any number of them make progress at once.
"""

import base64
import json
import os
from collections.abc import Generator
from typing import Protocol, runtime_checkable

import msgspec

from bench.load.frames import masked
from conclave.client.v1.handshake import ClientHandshake
from conclave.client.v2.login import ClientLogin
from conclave.machine.keys import MachineKey
from conclave.model import Plain, SessionPath, Visibility
from conclave.protocol import requests
from conclave.protocol.body import Body
from conclave.protocol.v1 import admin, frames
from conclave.protocol.v1.codec import decode, encode
from conclave.protocol.v2 import SUBPROTOCOL
from conclave.protocol.v2.codec import encode_request

Conversation = Generator[bytes, bytes, str]
"""Its result is the position of a channel that was joined, else empty."""


class Identity:
    """A user of a load, with a key that is made when it is first needed."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.key = MachineKey.generate()
        self.registered = False


class Dialect(Protocol):
    """One protocol.

    `reply_mark` is in each reply to a post, once, and in nothing else. `posts_from_outside` tells that a session may
    post to a channel that it has not joined, and receives its own posts in one that it has.
    """

    reply_mark: bytes
    posts_from_outside: bool

    def log_in(self, address: tuple[str, int], identity: Identity) -> Conversation:
        """Upgrade and log in; a new identity is registered."""
        ...

    def create(self, channel: str) -> Conversation:
        """Create a channel, where that is needed."""
        ...

    def join(self, channel: str, since: str | None = None) -> Conversation:
        """Join a channel and return its position. With `since`, what was missed follows."""
        ...

    def post(self, channel: str, text: str, number: int) -> bytes:
        """Return a frame that posts a text. Posts that are open at the same time have different numbers."""
        ...

    def ping(self) -> bytes:
        """Return a frame that keeps the session from being idle; nothing where none is needed."""
        ...


@runtime_checkable
class ReadingDialect(Dialect, Protocol):
    """A protocol by which a session reads what a server knows."""

    def history(self, channel: str, limit: int) -> Conversation:
        """Read the newest page."""
        ...

    def who(self, channel: str) -> Conversation:
        """List the sessions in a channel."""
        ...


def upgrade(address: tuple[str, int], path: str = "/", *protocols: str) -> bytes:
    """Return the request for a WebSocket."""
    lines = [
        f"GET {path} HTTP/1.1",
        f"Host: {address[0]}:{address[1]}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}",
        "Sec-WebSocket-Version: 13",
        *(f"Sec-WebSocket-Protocol: {each}" for each in protocols),
    ]
    return "\r\n".join([*lines, "", ""]).encode()


class ConclaveV2:
    """Version 2 of this project's protocol."""

    reply_mark = b'"re"'
    posts_from_outside = False

    def log_in(self, address: tuple[str, int], identity: Identity) -> Conversation:
        claim = None if identity.registered else (identity.name, "load")
        url = f"ws://{address[0]}:{address[1]}"
        login = ClientLogin(url=url, session="main", signer=identity.key, client="load", register=claim)
        yield upgrade(address, "/", SUBPROTOCOL)
        step = login.receive((yield _text(login.hello())))
        while isinstance(step, bytes):
            step = login.receive((yield _text(step)))
        identity.registered = True
        return ""

    def create(self, channel: str) -> Conversation:
        return (yield from self._ask(requests.ChannelCreate(channel)))

    def join(self, channel: str, since: str | None = None) -> Conversation:
        return (yield from self._ask(requests.Join(channel, since=since)))

    def post(self, channel: str, text: str, number: int) -> bytes:
        return _text(encode_request(number, requests.Send(channel, Body(text=text))))

    def ping(self) -> bytes:
        return _text(encode_request(0, requests.Ping()))

    def history(self, channel: str, limit: int) -> Conversation:
        return (yield from self._ask(requests.History(channel, limit=limit)))

    def who(self, channel: str) -> Conversation:
        return (yield from self._ask(requests.Who(channel)))

    def _ask(self, request: "requests.Request[object]") -> Conversation:
        message = yield _text(encode_request(1, request))
        while self.reply_mark not in message[:8]:
            message = yield b""
        if b'"error"' in message[:20]:
            raise ConnectionError(f"{request!r} was refused: {message!r}")
        return _position(message)


class ConclaveV1:
    """Version 1, which the original speaks, too."""

    reply_mark = b"\x82\x02\x10\x00"
    """The frame of an Ack without a detail."""
    posts_from_outside = False

    def log_in(self, address: tuple[str, int], identity: Identity) -> Conversation:
        claim = None if identity.registered else (identity.name, "load")
        login = ClientHandshake("main", identity.key, claim)
        yield upgrade(address)
        message = yield _binary(login.hello())
        while not isinstance(step := login.receive(decode(message)), frames.Established):
            if isinstance(step, frames.Whisper):
                raise ConnectionError("a whisper in a login")
            message = yield b"".join(map(_binary, step.frames))
        yield b""  # ServerInfo
        identity.registered = True
        return ""

    def create(self, channel: str) -> Conversation:
        return (yield from self._ask(frames.Admin(admin.CreateChannel(channel, Visibility.PUBLIC)), frames.Ack))

    def join(self, channel: str, since: str | None = None) -> Conversation:
        del since
        return (yield from self._ask(frames.Join(channel), frames.Joined))

    def post(self, channel: str, text: str, number: int) -> bytes:
        del number
        return _binary(frames.ChannelMsg(channel, SessionPath("x", "y", "z"), Plain(text)))

    def ping(self) -> bytes:
        return _binary(frames.Ping())

    def history(self, channel: str, limit: int) -> Conversation:
        del limit
        return (yield from self._ask(frames.ReadSince(channel, 0), frames.History))

    def who(self, channel: str) -> Conversation:
        return (yield from self._ask(frames.Who(channel), frames.Presence))

    def _ask(self, request: frames.Frame, expected: type[msgspec.Struct]) -> Conversation:
        answer = decode((yield _binary(request)))
        while isinstance(answer, frames.ChannelMsg):
            answer = decode((yield b""))
        if not isinstance(answer, expected):
            raise ConnectionError(f"{request!r} was refused: {answer!r}")
        return ""


class Centrifugo:
    """Centrifugo's JSON protocol, in a namespace that keeps history; see `bench.load.candidates`."""

    reply_mark = b'"id"'
    posts_from_outside = True

    def log_in(self, address: tuple[str, int], identity: Identity) -> Conversation:
        identity.registered = True
        yield upgrade(address, "/connection/websocket")
        yield from self._ask(1, connect={"name": "load"})
        return ""

    def create(self, channel: str) -> Conversation:
        del channel
        yield from ()
        return ""

    def join(self, channel: str, since: str | None = None) -> Conversation:
        options: dict[str, object] = {"channel": f"bench:{channel}"}
        if since is not None:
            epoch, _, offset = since.partition(" ")
            options |= {"recover": True, "epoch": epoch, "offset": int(offset)}
        reply = json.loads((yield from self._ask(2, subscribe=options)))["subscribe"]
        return f"{reply.get('epoch', '')} {reply.get('offset', 0)}"

    def post(self, channel: str, text: str, number: int) -> bytes:
        return _json({"id": number + 10, "publish": {"channel": f"bench:{channel}", "data": {"text": text}}})

    def ping(self) -> bytes:
        return b""

    def history(self, channel: str, limit: int) -> Conversation:
        return (yield from self._ask(3, history={"channel": f"bench:{channel}", "limit": limit, "reverse": True}))

    def who(self, channel: str) -> Conversation:
        return (yield from self._ask(4, presence={"channel": f"bench:{channel}"}))

    def _ask(self, number: int, **command: object) -> Conversation:
        message = yield _json({"id": number, **command})
        while self.reply_mark not in message[:8]:
            message = yield b""
        if b'"error"' in message[:40]:
            raise ConnectionError(f"{command} was refused: {message!r}")
        return message.split(b"\n", 1)[0].decode()


class Bare:
    """The protocol of `bench.load.bare_server`: a letter and the rest."""

    reply_mark = b"done"
    posts_from_outside = False

    def log_in(self, address: tuple[str, int], identity: Identity) -> Conversation:
        identity.registered = True
        yield upgrade(address)
        return ""

    def create(self, channel: str) -> Conversation:
        del channel
        yield from ()
        return ""

    def join(self, channel: str, since: str | None = None) -> Conversation:
        del since
        yield _text(b"J" + channel.encode())
        return ""

    def post(self, channel: str, text: str, number: int) -> bytes:
        del channel, number
        return _text(b"P" + text.encode())

    def ping(self) -> bytes:
        return b""


def _position(reply: bytes) -> str:
    """Return the position in a reply; not the whole reply is read, because it may have 5,000 rows."""
    _, found, rest = reply[:200].partition(b'"position":"')
    return rest.partition(b'"')[0].decode() if found else ""


def _text(payload: bytes) -> bytes:
    return masked(payload, text=True)


def _json(value: object) -> bytes:
    return _text(json.dumps(value, separators=(",", ":")).encode())


def _binary(frame: frames.Frame) -> bytes:
    return masked(encode(frame), text=False)
