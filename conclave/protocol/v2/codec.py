"""Requests, replies and events to JSON and back. Pure.

A request is its fields, its `op` and an integer `id`; the reply has that number as `re`, and the fields of the result
or an `error`. Unknown fields are ignored. Text is UTF-8, and a string is Unicode text: an escaped half of a surrogate
pair is refused.
"""

import functools
import json
import operator
import re
import typing
from collections.abc import Callable, Mapping
from functools import cache
from typing import Annotated, Any, TypeVar

import msgspec

from conclave.errors import BadRequest, Code, FrameError, Refusal
from conclave.protocol import events, requests

LONGEST_ID = 2**53 - 1
"""The greatest absolute value of an `id`: every implementation of JSON keeps it exactly."""

_INTEGER = re.compile(rb"-?(?:0|[1-9][0-9]{0,15})")
_SHOWN = 100
"""The length to which a refusal shortens the name of an unknown operation, in characters."""
_LONGEST_TEXT = 300
"""The length to which a decoder's reason is shortened, in characters: it may repeat the whole message."""

T = TypeVar("T")


class Incoming(msgspec.Struct, frozen=True):
    """A request and its number."""

    id: int
    request: requests.Request[Any]


class Reply(msgspec.Struct, frozen=True):
    """A reply to request `re`, with the refusal if there is one. `decode_result` reads its result."""

    re: int | None
    refusal: Refusal | None
    raw: bytes


class _Error(msgspec.Struct, frozen=True, omit_defaults=True):
    code: str
    message: str
    retry_after: float | None = None


class _Envelope(msgspec.Struct, frozen=True):
    op: msgspec.Raw = msgspec.Raw(b"")
    id: msgspec.Raw = msgspec.Raw(b"")


class _ServerEnvelope(msgspec.Struct, frozen=True):
    re: int | msgspec.UnsetType | None = msgspec.UNSET
    ev: str = ""
    error: msgspec.Raw = msgspec.Raw(b"")
    """An object in a reply. An event may have a field of this name, too."""


_REQUESTS: Mapping[str, type[requests.Request[Any]]] = {
    str(type_.__struct_config__.tag): type_ for type_ in requests.Request.__subclasses__()
}
_EVENTS: Mapping[str, type[events.Event]] = {
    str(type_.__struct_config__.tag): type_ for type_ in events.Event.__subclasses__()
}
_encode = msgspec.json.Encoder().encode
_decode_envelope = msgspec.json.Decoder(_Envelope).decode
_decode_error: Callable[[msgspec.Raw], _Error | None] = msgspec.json.Decoder(_Error | None).decode
_decode_server = msgspec.json.Decoder(_ServerEnvelope).decode
_BROKEN = (msgspec.DecodeError, UnicodeError, RecursionError)


@cache
def _decoder(type_: type[T]) -> "msgspec.json.Decoder[T]":
    return msgspec.json.Decoder(type_)


# --- The server's side ---


def decode_request(data: bytes | str) -> Incoming:
    """Read a request.

    Raises:
        BadRequest: for an object that is not a request, with its number if it has one.
        FrameError: for a message that is not a JSON object.
    """
    try:
        text = data if isinstance(data, str) else data.decode()
        decode, plain = _numbered_requests()
        numbered = decode(text)
    except _BROKEN:
        return _decode_with_reason(data)
    *fields, request_id = msgspec.structs.astuple(numbered)
    return Incoming(request_id, plain[type(numbered)](*fields))


@cache
def _numbered_requests() -> tuple[Callable[[str], msgspec.Struct], Mapping[type[msgspec.Struct], Any]]:
    """Return a decoder of every request with its number, as its last field; and the types without a number."""
    number = ("id", Annotated[int, msgspec.Meta(ge=-LONGEST_ID, le=LONGEST_ID)])
    plain = {
        msgspec.defstruct(type_.__name__, [number], bases=(type_,), tag=tag, frozen=True, kw_only=True): type_
        for tag, type_ in _REQUESTS.items()
    }
    union: Any = functools.reduce(operator.or_, plain)
    return msgspec.json.Decoder(union).decode, plain


def _decode_with_reason(data: bytes | str) -> Incoming:
    """Read a request in the steps that tell what is wrong with it."""
    try:
        text = data if isinstance(data, str) else data.decode()
        envelope = _decode_envelope(text)
    except _BROKEN as error:
        raise _no_object(data, error) from None
    request_id = _request_id(bytes(envelope.id))
    if request_id is None:
        raise BadRequest(None, "a request needs an `id`: an integer of at most 53 bits")
    type_ = _REQUESTS.get(_text(bytes(envelope.op)))
    if type_ is None:
        raise BadRequest(request_id, f"unknown operation {bytes(envelope.op).decode()[:_SHOWN] or '(none)'}")
    try:
        return Incoming(request_id, _decoder(type_).decode(text))
    except msgspec.DecodeError as error:
        raise BadRequest(request_id, reason(error)) from None


def encode_result(request_id: int, result: msgspec.Struct) -> bytes:
    """Encode the reply with the result of a request."""
    fields = _encode(result)
    return b'{"re":%d' % request_id + (b"}" if fields == b"{}" else b"," + fields[1:])


def encode_error(request_id: int | None, refusal: Refusal) -> bytes:
    """Encode the reply with the refusal of a request. None stands for a request without a number."""
    error = _Error(refusal.code.value, refusal.message, refusal.retry_after)
    return _encode({"re": request_id, "error": error})


def encode_event(event: events.Event) -> bytes:
    return _encode(event)


# --- The client's side ---


def encode_request(request_id: int, request: requests.Request[Any]) -> bytes:
    return b'{"id":%d,' % request_id + _encode(request)[1:]


def decode_message(data: bytes | str) -> Reply | events.Event | None:
    """Read a message of a server; None for an event that this version does not know.

    Raises:
        FrameError: for a message that is neither a reply nor an event.
    """
    try:
        envelope = _decode_server(data)
        if envelope.re is not msgspec.UNSET:
            raw = data if isinstance(data, bytes) else data.encode()
            return Reply(envelope.re, _refusal(envelope.error), raw)
        if not envelope.ev:
            raise FrameError("neither a reply nor an event")
        type_ = _EVENTS.get(envelope.ev)
        return None if type_ is None else _decoder(type_).decode(data)
    except _BROKEN as error:
        raise FrameError(f"unreadable message: {reason(error)}") from None


def decode_result(answer: Reply, request: type[requests.Request[T]]) -> T:
    """Read the result of a request out of its reply.

    Raises:
        Refusal: the server's.
        FrameError: if the result is not of this request's type.
    """
    if answer.refusal is not None:
        raise answer.refusal
    try:
        result: T = msgspec.json.decode(answer.raw, type=requests.result_type(request))
        return result
    except _BROKEN as error:
        raise FrameError(f"unreadable result of `{request.__struct_config__.tag}`: {reason(error)}") from None


def refusal_of(code: str, message: str, retry_after: float | None = None) -> Refusal:
    """Return the refusal that a server encoded. A code of a later version counts as `internal`."""
    known = Code(code) if code in Code._value2member_map_ else Code.INTERNAL
    return Refusal(known, message, retry_after=retry_after)


def reason(error: BaseException) -> str:
    """Return a decoder's reason, shortened to fit a reply."""
    text = str(error)
    return text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]}…"


def _refusal(raw: msgspec.Raw) -> Refusal | None:
    error = _decode_error(raw) if bytes(raw) else None
    return None if error is None else refusal_of(error.code, error.message, error.retry_after)


def _request_id(raw: bytes) -> int | None:
    if not _INTEGER.fullmatch(raw):
        return None
    number = int(raw)
    return number if abs(number) <= LONGEST_ID else None


def _text(raw: bytes) -> str:
    """Return a JSON string's value, '' for anything else."""
    value = json.loads(raw) if raw.startswith(b'"') else ""
    return typing.cast("str", value)


def _no_object(data: bytes | str, error: BaseException) -> Exception:
    """Return BadRequest for an object with a flaw, such as half of a surrogate pair, else FrameError.

    The standard library reads more than is allowed here. Only the request's number is taken from that.
    """
    try:
        value = json.loads(data if isinstance(data, str) else data.decode())  # of bytes it would take UTF-16, too
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        return FrameError(f"expected a JSON object: {reason(error)}")
    number = value.get("id")
    known = isinstance(number, int) and not isinstance(number, bool) and abs(number) <= LONGEST_ID
    return BadRequest(number if known else None, f"invalid JSON: {reason(error)}")
