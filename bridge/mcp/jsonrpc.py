"""JSON-RPC 2.0 as MCP uses it on a stream: one message per line, no batches, ids are strings or integers.

Bytes in any pieces go into `Lines` and come out as messages; a malformed one comes out as the `Fault` that answers it.
No input of a peer raises an exception here.
"""

import re
from collections.abc import Iterator
from typing import Any, Final, NamedTuple, TypeGuard

import orjson

PARSE_ERROR: Final = -32700
INVALID_REQUEST: Final = -32600
METHOD_NOT_FOUND: Final = -32601
INVALID_PARAMS: Final = -32602
INTERNAL_ERROR: Final = -32603

LINE_BYTES: Final = 16 * 1024 * 1024
"""The greatest length of a line."""

Id = str | int


class Request(NamedTuple):
    """A message that gets exactly one answer, under its id."""

    id: Id
    method: str
    params: Any
    """An object, a list, or None."""


class Notification(NamedTuple):
    """A message that gets no answer."""

    method: str
    params: Any


class Response(NamedTuple):
    """The peer's answer or error. It is never answered, even if malformed: two peers could do so for ever."""

    id: Any


class Fault(NamedTuple):
    """The error reply to a message. Its id is None if the message has no valid one."""

    id: Id | None
    code: int
    message: str


Message = Request | Notification | Response | Fault

TOO_LONG: Final = Fault(None, INVALID_REQUEST, f"invalid request: a line may have at most {LINE_BYTES} bytes")

# A pair of surrogates is one character; a lone one is not, although JSON can express it. Every other escape is matched,
# too, so that the second half of `\\` is not taken for the start of one.
_ESCAPE: Final = re.compile(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(\\u[dD][89a-fA-F][0-9a-fA-F]{2})|\\.", re.DOTALL
)

# Legal in JSON, but line ends for many readers.
_LINE_ENDS: Final = (
    ("\u0085".encode(), rb"\u0085"),
    ("\u2028".encode(), rb"\u2028"),
    ("\u2029".encode(), rb"\u2029"),
)


class Lines:
    """Splits a stream into messages. A line over the limit gets one error reply and is skipped, not kept."""

    def __init__(self, limit: int = LINE_BYTES) -> None:
        self._limit = limit
        self._line = bytearray()
        self._skipping = False

    def feed(self, chunk: bytes) -> Iterator[Message]:
        """Yield the messages that the chunk completes; the rest waits for the next chunk."""
        *ends, rest = chunk.split(b"\n")
        for end in ends:
            yield from self._add(end)
            yield from self.end()
        yield from self._add(rest)

    def end(self) -> Iterator[Message]:
        """Yield the message that the line feed, or the end of the stream, completes."""
        line, self._line = self._line, bytearray()
        self._skipping = False
        message = parse(line)
        if message is not None:
            yield message

    def _add(self, piece: bytes) -> Iterator[Message]:
        if self._skipping:
            return
        if len(self._line) + len(piece) > self._limit:
            self._skipping = True
            self._line = bytearray()
            yield TOO_LONG
        else:
            self._line += piece


def parse(line: bytes | bytearray) -> Message | None:
    """Return the message of a line, None for a blank one. Invalid UTF-8 and lone surrogates become U+FFFD."""
    if not line.strip():
        return None
    try:
        message = _decoded(line)
    except orjson.JSONDecodeError as error:
        return Fault(None, PARSE_ERROR, f"parse error: {error}")
    if not isinstance(message, dict):
        return _invalid(None, "a message is one JSON object")
    id_ = message.get("id")
    if "method" not in message and ("result" in message or "error" in message):
        return Response(id_)
    if "id" in message and not is_id(id_):
        return _invalid(None, "`id` must be a string or an integer")
    if message.get("jsonrpc") != "2.0":
        return _invalid(id_, '`jsonrpc` must be "2.0"')
    method, params = message.get("method"), message.get("params")
    if not isinstance(method, str):
        return _invalid(id_, "`method` must be a string")
    if not isinstance(params, dict | list | None):
        return _invalid(id_, "`params` must be an object")
    return Notification(method, params) if id_ is None else Request(id_, method, params)


def is_id(value: object) -> TypeGuard[Id]:
    """Tell if a request may have this id. The decoder takes integers of up to 64 bits only."""
    return isinstance(value, str | int) and not isinstance(value, bool)


def result_line(id_: Id, result: dict[str, Any]) -> bytes:
    return _line({"jsonrpc": "2.0", "id": id_, "result": result})


def fault_line(fault: Fault) -> bytes:
    error = {"code": fault.code, "message": fault.message}
    return _line({"jsonrpc": "2.0", "id": fault.id, "error": error})


def notification_line(method: str, params: dict[str, Any] | None = None) -> bytes:
    message: dict[str, Any] = {"jsonrpc": "2.0", "method": method}
    return _line(message if params is None else {**message, "params": params})


def _invalid(id_: Id | None, reason: str) -> Fault:
    return Fault(id_, INVALID_REQUEST, f"invalid request: {reason}")


def _decoded(line: bytes | bytearray) -> Any:
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError:
        # A client that has cut a text in the middle of an emoji still waits for its answer.
        repaired = _ESCAPE.sub(_without_surrogate, line.decode(errors="replace").encode())
        if repaired == line:
            raise
        return orjson.loads(repaired)


def _without_surrogate(escape: re.Match[bytes]) -> bytes:
    return rb"\ufffd" if escape[1] else escape[0]


def _line(message: dict[str, Any]) -> bytes:
    """Render a message as one line of valid UTF-8.

    Raises:
        TypeError: if a value is not one of JSON.
    """
    try:
        line = orjson.dumps(message)
    except TypeError:
        line = orjson.dumps(_without_lone_surrogates(message))
    for raw, escaped in _LINE_ENDS:
        line = line.replace(raw, escaped)
    return line + b"\n"


def _without_lone_surrogates(value: Any) -> Any:
    """Replace them by U+FFFD: Python strings may hold them (file names do), UTF-8 may not."""
    if isinstance(value, str):
        return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    if isinstance(value, dict):
        return {_without_lone_surrogates(key): _without_lone_surrogates(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_without_lone_surrogates(inner) for inner in value]
    return value
