"""Protocol v2: JSON in text messages, every request with a number and its reply with the same one, in order."""

import secrets
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from typing import Any

import msgspec

from conclave.errors import Code, InvalidName, Refusal
from conclave.model import SessionPath
from conclave.protocol import events, requests, v2
from conclave.protocol.credentials import NONCE_BYTES
from conclave.protocol.v2 import CloseCode
from conclave.protocol.v2.close_codes import login_close
from conclave.protocol.v2.login import Limits, Ready
from conclave.protocol.v2.server_login import ServerLogin
from relay.model.close_reason import CloseReason, Ended
from relay.model.errors import RETRY_SECONDS
from relay.model.message import PAGE_BYTES, Message, order
from relay.protocol.codec import Received
from relay.protocol.framing import close_frame, text_frame
from relay.protocol.message_requests import Post, ReadHistory, Whisper
from relay.protocol.stored_body import decode_body, decode_text, encode_body
from relay.redis import signals
from relay.redis.channel_log import LogPage

_CODES = {
    CloseReason.LEFT: CloseCode.NORMAL,
    CloseReason.LOST: CloseCode.INTERNAL,
    CloseReason.SUPERSEDED: CloseCode.SUPERSEDED,
    CloseReason.REVOKED: CloseCode.REVOKED,
    CloseReason.USER_REMOVED: CloseCode.USER_REMOVED,
    CloseReason.IDLE: CloseCode.IDLE,
    CloseReason.SLOW_READER: CloseCode.SLOW_READER,
    CloseReason.MALFORMED: CloseCode.MALFORMED,
    CloseReason.SHUTDOWN: CloseCode.RESTART,
}


class V2Codec:
    """v2 as the node speaks it. Every close has a code, and a `closing` event before it says the same."""

    subprotocol: str | None = v2.SUBPROTOCOL
    text: bool = True

    def __init__(self, *, origins: AbstractSet[str], idle_seconds: float, message_bytes: int) -> None:
        """`origins` are those that clients may have dialled; none means any. The others are limits of a session."""
        self._origins = origins
        self._heartbeat = max(1, int(idle_seconds / 3))
        self._limits = Limits(message_bytes)

    def handshake(self, cluster: str, node: str) -> "V2Handshake":
        nonce = secrets.token_bytes(NONCE_BYTES)
        return V2Handshake(ServerLogin(nonce, cluster=cluster, node=node, origins=self._origins))

    def login_accepted(self, path: SessionPath, *, admin: bool) -> bytes:
        return text_frame(msgspec.json.encode(Ready(str(path), admin, self._heartbeat, self._limits)))

    def login_refused(self, refusal: Refusal) -> bytes:
        code = _CODES[refusal.reason] if isinstance(refusal, Ended) else login_close(refusal.code)
        retry = RETRY_SECONDS if code is CloseCode.LATER else None
        event = events.Closing(code, refusal.message, refusal.retry_after or retry, refusal.code.value)
        return _event(event) + close_frame(code, refusal.message)

    def decode_request(self, data: Received) -> "V2Request":
        try:
            return V2Request(v2.decode_request(data))
        except v2.BadRequest as bad:
            return V2Request(bad)

    def message(self, channel: str, message: Message) -> bytes:
        text = decode_text(message.payload)
        if text is None:
            body = decode_body(message.payload)
            return _event(events.Message(channel, message.sender, body, message.id, message.ts_ms))
        event = _TextMessage(channel, message.sender, _Text(text), message.id, message.ts_ms)
        return text_frame(msgspec.json.encode(event))

    def whisper(self, whisper: signals.Whisper) -> bytes:
        return _event(events.Whispered(whisper.sender, decode_body(whisper.payload), whisper.id, whisper.ts))

    def left(self, channel: str, reason: str) -> bytes:
        return _event(events.Left(channel, "removed" if reason == "revoked" else reason))

    def renamed(self, old: str, new: str) -> bytes:
        return _event(events.Renamed(old, new))

    def gap(self, channel: str, after: str) -> bytes:
        return _event(events.Gap(channel, after))

    def closing(self, reason: CloseReason) -> bytes:
        code = _CODES[reason]
        if reason.text is None:
            return close_frame(code, "")
        return _event(events.Closing(code, reason.text)) + close_frame(code, reason.text)


class V2Handshake:
    """The login of v2, its messages as frames."""

    def __init__(self, login: ServerLogin) -> None:
        self._login = login

    def receive(self, data: Received) -> Any:
        step = self._login.receive(data)
        return text_frame(step) if isinstance(step, bytes) else step


class V2Request:
    """One request of a session, or an object that is not one."""

    def __init__(self, incoming: "v2.Incoming | v2.BadRequest") -> None:
        self._incoming = incoming
        self._request: Any = None

    @property
    def operation(self) -> str:
        return (
            "" if isinstance(self._incoming, v2.BadRequest) else str(type(self._incoming.request).__struct_config__.tag)
        )

    def decode(self) -> Any:
        if isinstance(self._incoming, v2.BadRequest):
            raise self._incoming
        request = self._incoming.request
        convert = CONVERSIONS.get(type(request))
        self._request = request if convert is None else convert(request)
        return self._request

    def reply(self, result: Any) -> bytes:
        assert isinstance(self._incoming, v2.Incoming)  # noqa: S101 - else there is no result
        if isinstance(result, LogPage):
            newest = isinstance(self._request, ReadHistory) and self._request.after is None
            result = _encoded_page(result, newest=newest)
        return text_frame(v2.encode_result(self._incoming.id, result))

    def refused(self, refusal: Refusal) -> bytes:
        return text_frame(v2.encode_error(self._incoming.id, refusal))


# --- A message with a text, as `events.Message` is encoded: in two thirds of the time, without the checks of a Body ---


class _Text(msgspec.Struct, frozen=True):
    text: str


class _TextMessage(msgspec.Struct, frozen=True, tag_field="ev", tag="message"):
    channel: str
    from_: str = msgspec.field(name="from")
    body: _Text
    id: str
    ts: int


def _event(event: events.Event) -> bytes:
    return text_frame(v2.encode_event(event))


def _malformed(message: str) -> Refusal:
    return Refusal(Code.MALFORMED, message)


# --- Requests that are not asked as JSON says them ---


def _post(request: requests.Send) -> Post:
    return Post(request.channel, encode_body(request.body), request.key)


def _whisper(request: requests.Whisper) -> Whisper:
    try:
        target = SessionPath.parse(request.to)
    except InvalidName as error:
        raise _malformed(str(error)) from None
    return Whisper(target, encode_body(request.body), request.key)


def _history(request: requests.History) -> ReadHistory:
    if request.after is not None and request.after_ts is not None:
        raise _malformed("either `after` or `after_ts`")
    after = request.after_ts if request.after is None else request.after
    return ReadHistory(request.channel, after, request.before, request.limit)


def _audit(request: requests.Audit) -> requests.Audit:
    if request.limit is not None and not 1 <= request.limit < 2**32:
        raise _malformed("a limit is at least 1")
    return request


CONVERSIONS: dict[type[requests.Request[Any]], Callable[[Any], Any]] = {
    requests.Send: _post,
    requests.Whisper: _whisper,
    requests.History: _history,
    requests.Audit: _audit,
}
"""From what JSON says to what is asked; every other request is asked as it is. They raise Refusal."""


# --- Results that are not encoded field by field ---


class _EncodedPage(msgspec.Struct, frozen=True, omit_defaults=True):
    """A Page whose messages are JSON already."""

    messages: list[msgspec.Raw]
    more: bool
    lost: bool = False
    gaps: tuple[str, ...] = ()


def _encoded_page(page: LogPage, *, newest: bool) -> _EncodedPage:
    """Encode as many rows as a reply may hold. JSON may be six times as long as what is stored.

    Rows are left out at the end at which the next request goes on: the oldest of a page that is read backwards from
    the `newest`, else the last.
    """
    rows = [
        msgspec.json.encode(requests.Row(each.id, each.ts_ms, each.sender, decode_body(each.payload)))
        for each in page.rows
    ]
    fitting = _fitting(rows[::-1])[::-1] if newest else _fitting(rows)
    more = page.more or len(fitting) < len(rows)
    return _EncodedPage([msgspec.Raw(row) for row in fitting], more, not page.known, _gaps(page, len(fitting)))


def _gaps(page: LogPage, sent: int) -> tuple[str, ...]:
    """Return the gaps of a page of which only the newest messages are sent."""
    if sent == len(page.rows):
        return page.gaps
    return tuple(gap for gap in page.gaps if order(gap) >= order(page.rows[-sent].id))


def _fitting(rows: list[bytes]) -> list[bytes]:
    """Return the first rows that fit a page: one at least."""
    size = 0
    for count, row in enumerate(rows):
        size += len(row)
        if count and size > PAGE_BYTES:
            return rows[:count]
    return rows
