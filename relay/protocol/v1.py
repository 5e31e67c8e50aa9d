"""Protocol v1: bincode in binary messages, one reply to every request, in order."""

import secrets
from functools import lru_cache
from typing import Any

from conclave.errors import Code, FrameError, Refusal
from conclave.model import SessionPath
from conclave.protocol import v1
from conclave.protocol.credentials import NONCE_BYTES, LoginClaim, RegistrationClaim
from conclave.protocol.v1 import frames, operations
from conclave.protocol.v1.errors import error_frame
from conclave.protocol.v1.operations import path_of
from conclave.protocol.v1.server_handshake import Reply, ServerHandshake, undecodable
from relay.model.close_reason import CloseReason
from relay.model.message import Message
from relay.protocol.codec import Received
from relay.protocol.framing import CLOSE, binary_frame
from relay.protocol.message_requests import Post, ReadSince, Whisper
from relay.protocol.stored_body import encode_payload
from relay.redis import signals

_REQUESTS = {frames.Admin, frames.ChannelMsg, frames.Whisper, frames.ReadSince} | operations.BY_FRAME.keys()

_REMEMBERED_HEADS = 4096
"""The number of pairs of a channel and a sender whose encoding is kept ready for messages."""


class V1Codec:
    """v1 as the node speaks it. A session that is ended gets an Unauthorized error with the reason, then a close."""

    subprotocol: str | None = None
    text: bool = False

    def handshake(self, cluster: str, node: str) -> "V1Handshake":  # noqa: ARG002 - v1 names neither
        return V1Handshake()

    def login_accepted(self, path: SessionPath, *, admin: bool) -> bytes:
        """Encode Established and ServerInfo."""
        return _encode(frames.Established(path)) + _encode(frames.ServerInfo(admin))

    def login_refused(self, refusal: Refusal) -> bytes:
        return _encode(error_frame(refusal)) + CLOSE

    def decode_request(self, data: Received) -> "V1Request":
        assert isinstance(data, bytes)  # noqa: S101 - a binary protocol gets binary messages only
        return V1Request(data)

    def message(self, channel: str, message: Message) -> bytes:
        return binary_frame(_message_head(channel, message.sender) + message.payload)

    def whisper(self, whisper: signals.Whisper) -> bytes:
        payload = frames.RawPayload(whisper.payload)
        return _encode(frames.Whisper(path_of(whisper.sender), path_of(whisper.target), payload))

    def left(self, channel: str, reason: str) -> None:  # noqa: ARG002 - v1 has no such event
        return None

    def renamed(self, old: str, new: str) -> None:  # noqa: ARG002 - v1 has no such event
        return None

    def gap(self, channel: str, after: str) -> None:  # noqa: ARG002 - v1 has no such event
        return None

    def closing(self, reason: CloseReason) -> bytes:
        if reason.text is None:
            return CLOSE
        return _encode(frames.Error(frames.Unauthorized(reason.text))) + CLOSE


class V1Handshake:
    """The v1 handshake, from and to bytes."""

    def __init__(self) -> None:
        self._handshake = ServerHandshake(secrets.token_bytes(NONCE_BYTES))

    def receive(self, data: Received) -> bytes | LoginClaim | RegistrationClaim:
        assert isinstance(data, bytes)  # noqa: S101 - as above
        try:
            step = self._handshake.receive(v1.decode(data))
        except FrameError as error:
            raise undecodable(error) from None
        match step:
            case LoginClaim() | RegistrationClaim():
                return step
            case Reply(frame):
                return _encode(frame)
            case _:
                return b""


class V1Request:
    """One binary message of a session. Only frames that are requests are decoded."""

    __slots__ = ("_data", "_request", "operation")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._request: Any = None
        self.operation = ""

    def decode(self) -> Any:
        try:
            if v1.frame_type(self._data) not in _REQUESTS:
                raise Refusal(Code.MALFORMED, "unexpected frame from client")
            frame = v1.decode(self._data)
        except FrameError as error:
            raise Refusal(Code.MALFORMED, str(error)) from None
        self.operation = frames.kind(frame)
        self._request = _request_of(frame)
        return self._request

    def reply(self, result: Any) -> bytes:
        match self._request:
            case Post() | Whisper():
                return _ACCEPTED
            case ReadSince(channel):
                return _encode(frames.History(channel, tuple(map(_row, result))))
            case _:
                return _encode(operations.reply_of(self._request, result))

    def refused(self, refusal: Refusal) -> bytes:
        return _encode(error_frame(refusal))


def _encode(frame: frames.Frame) -> bytes:
    return binary_frame(v1.encode(frame))


@lru_cache(_REMEMBERED_HEADS)
def _message_head(channel: str, sender: str) -> bytes:
    """Return a message's frame up to its payload, which is stored as v1 encodes it."""
    return v1.encode(frames.ChannelMsg(channel, path_of(sender), frames.RawPayload(b"")))


_ACCEPTED = _encode(frames.Ack(None))
"""The reply to every post and every whisper."""


def _request_of(frame: frames.Frame) -> Any:
    match frame:
        case frames.ChannelMsg():
            return Post(frame.channel, encode_payload(frame.payload))
        case frames.Whisper():
            return Whisper(frame.target, encode_payload(frame.payload))
        case frames.ReadSince():
            return ReadSince(frame.channel, frame.since_ms)
        case _:
            return operations.request_of(frame)


def _row(message: Message) -> frames.HistoryMessage:
    return frames.HistoryMessage(path_of(message.sender), message.ts_ms, frames.RawPayload(message.payload))
