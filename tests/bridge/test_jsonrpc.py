"""Lines of bytes and their messages: for any input, only valid lines are written."""

from typing import Any

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bridge.mcp.jsonrpc import (
    INVALID_REQUEST,
    PARSE_ERROR,
    TOO_LONG,
    Fault,
    Lines,
    Message,
    Notification,
    Request,
    Response,
    fault_line,
    notification_line,
    parse,
    result_line,
)

TEXTS = st.text(st.characters(exclude_categories=()) | st.sampled_from("\ud800\udc00\u0085\u2028\u2029\\\n\r"))
"""Every string that Python can hold, lone surrogates included, often with characters that end a line."""

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
NEAR_MESSAGES = st.fixed_dictionaries(
    {},
    optional={
        "jsonrpc": st.just("2.0") | JSON,
        "id": st.integers(-(2**63), 2**64 - 1) | JSON,
        "method": st.text() | JSON,
        "params": JSON,
        "result": JSON,
        "error": JSON,
    },
)


def one_line(line: bytes) -> Any:
    """Return the line's message; it must be one line for every way of counting lines, and strict JSON in UTF-8."""
    assert line.endswith(b"\n")
    assert len(line.decode().splitlines()) == 1
    return orjson.loads(line)


def without_lone_surrogates(text: str) -> str:
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


@given(st.binary() | JSON.map(orjson.dumps) | NEAR_MESSAGES.map(orjson.dumps))
@example(b"\xff")
@example(b"[" * 100_000)
@example(b'{"jsonrpc":"2.0","id":1,"method":"\\ud800')
@example(b"\xef\xbb\xbf{}")
def test_any_line_means_something_or_is_answered_with_one_line(line: bytes) -> None:
    """A reader that raises ends the bridge, and with it the session's whole connection."""
    message = parse(line)
    if isinstance(message, Fault):
        answer = one_line(fault_line(message))
        assert answer["id"] == message.id
        assert answer["error"]["code"] in {PARSE_ERROR, INVALID_REQUEST}
    elif message is None:
        assert not line.strip()


@given(NEAR_MESSAGES)
def test_only_a_valid_id_is_repeated_and_a_response_never_answered(document: dict[str, Any]) -> None:
    """An answer under an id that the client did not choose would settle another request."""
    message = parse(orjson.dumps(document))
    id_ = document.get("id")
    valid = isinstance(id_, str | int) and not isinstance(id_, bool)
    if "method" not in document and ("result" in document or "error" in document):
        assert isinstance(message, Response)
    elif isinstance(message, Request):
        assert valid
        assert message.id == id_
    elif isinstance(message, Notification):
        assert "id" not in document
    else:
        assert isinstance(message, Fault)
        assert message.id == (id_ if valid else None)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b'{"jsonrpc":"2.0","id":1,"method":"ping"}', Request(1, "ping", None)),
        (b' {"jsonrpc":"2.0","id":"a","method":"ping","params":null}\r', Request("a", "ping", None)),
        (b'{"jsonrpc":"2.0","id":0,"method":"x","params":{"a":1}}', Request(0, "x", {"a": 1})),
        (b'{"jsonrpc":"2.0","id":"","method":"x","params":[1]}', Request("", "x", [1])),
        (b'{"jsonrpc":"2.0","method":"notifications/initialized"}', Notification("notifications/initialized", None)),
        (b'{"jsonrpc":"2.0","id":3,"result":{}}', Response(3)),
        (b'{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":""}}', Response(None)),
    ],
)
def test_valid_messages(line: bytes, expected: Message) -> None:
    """The four forms, with what real clients vary: white space, `null` params, empty and zero ids."""
    message = parse(line)
    assert type(message) is type(expected)
    assert message == expected


@pytest.mark.parametrize("blank", [b"", b" ", b"\r", b"\t \r"])
def test_a_blank_line_is_nothing(blank: bytes) -> None:
    """A file of requests may end with several line feeds."""
    assert parse(blank) is None


@pytest.mark.parametrize("line", [b"{", b"nonsense", b"NaN", b'{"a":1}x', b"\xff\xfe", b"'a'", b'{"id":"\xff}'])
def test_invalid_json_is_a_parse_error_without_an_id(line: bytes) -> None:
    """JSON-RPC wants id null where the id cannot be known."""
    fault = parse(line)
    assert isinstance(fault, Fault)
    assert (fault.id, fault.code) == (None, PARSE_ERROR)
    assert one_line(fault_line(fault))["id"] is None


@pytest.mark.parametrize(
    ("line", "id_"),
    [
        (b"[]", None),
        (b'[{"jsonrpc":"2.0","id":1,"method":"ping"}]', None),
        (b"1", None),
        (b'"x"', None),
        (b"null", None),
        (b"{}", None),
        (b'{"jsonrpc":"2.0","id":1}', 1),
        (b'{"id":1,"method":"ping"}', 1),
        (b'{"jsonrpc":"1.0","id":"a","method":"ping"}', "a"),
        (b'{"jsonrpc":2.0,"id":1,"method":"ping"}', 1),
        (b'{"jsonrpc":"2.0","id":1,"method":7}', 1),
        (b'{"jsonrpc":"2.0","id":1,"method":null}', 1),
        (b'{"jsonrpc":"2.0","id":1,"method":"ping","params":7}', 1),
        (b'{"jsonrpc":"2.0","id":1,"method":"ping","params":"x"}', 1),
        (b'{"jsonrpc":"2.0","id":true,"method":"ping"}', None),
        (b'{"jsonrpc":"2.0","id":null,"method":"ping"}', None),
        (b'{"jsonrpc":"2.0","id":1.5,"method":"ping"}', None),
        (b'{"jsonrpc":"2.0","id":{},"method":"ping"}', None),
        (b'{"jsonrpc":"2.0","id":[1],"method":"ping"}', None),
        (b'{"jsonrpc":"2.0","id":123456789012345678901234567890,"method":"ping"}', None),
    ],
)
def test_json_that_is_no_request_is_an_invalid_request(line: bytes, id_: str | int | None) -> None:
    """The original never answered these; a client that sent one waited for ever. Batches are not part of MCP."""
    fault = parse(line)
    assert isinstance(fault, Fault)
    assert (fault.id, fault.code) == (id_, INVALID_REQUEST)


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (b"\\ud83d", "\ufffd"),
        (b"a\\uDE00b", "a\ufffdb"),
        (b"\\ud83d\\ude00", "\U0001f600"),
        (b"\\ud83d\\ud83d\\ude00", "\ufffd\U0001f600"),
        (b"\\ud83d\\ud83d\\ude00\\ud800", "\ufffd\U0001f600\ufffd"),
        (b"\\\\ud83d \\ud800", "\\ud83d \ufffd"),
        (b"\\ud83d\\n", "\ufffd\n"),
        (b"caf\xe9", "caf\ufffd"),
        (b"\xed\xa0\xbd", "\ufffd\ufffd\ufffd"),
    ],
)
def test_half_a_character_does_not_cost_the_answer(written: bytes, read: str) -> None:
    """JavaScript writes text that was cut in the middle of an emoji like this, and then waits for the answer."""
    message = parse(b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"text":"' + written + b'"}}')
    assert message == Request(1, "tools/call", {"text": read})


@given(st.lists(st.binary(max_size=20) | NEAR_MESSAGES.map(orjson.dumps), max_size=6), st.data())
def test_where_the_stream_is_cut_makes_no_difference(pieces: list[bytes], data: st.DataObject) -> None:
    """Pipes deliver what they like."""
    stream = b"\n".join(pieces)
    whole = [message for line in stream.split(b"\n") if (message := parse(line)) is not None]
    lines = Lines()
    received: list[Message] = []
    rest = stream
    while rest:
        size = data.draw(st.integers(1, len(rest)))
        received += lines.feed(rest[:size])
        rest = rest[size:]
    received += lines.end()
    assert [(type(message), message) for message in received] == [(type(message), message) for message in whole]


@pytest.mark.parametrize("piece", [1, 7, 100, 1000])
def test_a_line_over_the_limit_is_answered_once_and_skipped(piece: int) -> None:
    """Neither its beginning nor its end may be taken for a message, and the next line is read as ever."""
    ping = b'{"jsonrpc":"2.0","id":1,"method":"ping"}'
    stream = ping + b"\n" + b"{" + b" " * 200 + ping + b"\n" + ping + b"\n" + b"[" * 101
    lines = Lines(limit=100)
    received: list[Message] = []
    for start in range(0, len(stream), piece):
        received += lines.feed(stream[start : start + piece])
    received += lines.end()
    assert received == [Request(1, "ping", None), TOO_LONG, Request(1, "ping", None), TOO_LONG]


def test_a_line_of_exactly_the_limit_is_read() -> None:
    """The limit is that of a line, and the answer has it."""
    ping = b'{"jsonrpc":"2.0","id":1,"method":"ping"}'
    assert list(Lines(limit=len(ping)).feed(ping + b"\n")) == [Request(1, "ping", None)]


@given(TEXTS, TEXTS, TEXTS)
@example("\ud83d", "\ude00", "\ud83d\ude00")
def test_any_strings_make_one_valid_line(id_: str, key: str, text: str) -> None:
    """Names and messages come from other users; no string may cut the stream in two, or stop it."""
    result = one_line(result_line(without_lone_surrogates(id_), {key: [text, {"deep": text}]}))
    clean = without_lone_surrogates(text)
    assert result["id"] == without_lone_surrogates(id_)
    assert result["result"] == {without_lone_surrogates(key): [clean, {"deep": clean}]}
    notification = one_line(notification_line("notifications/x", {"content": text}))
    assert notification == {"jsonrpc": "2.0", "method": "notifications/x", "params": {"content": clean}}


def test_a_lone_surrogate_shows() -> None:
    """Left out, it could join what stood apart."""
    assert "a\ufffdb".encode() in notification_line("x", {"content": "a\ud800b"})


def test_a_notification_without_params_has_none() -> None:
    """Some clients refuse `"params": null`."""
    assert one_line(notification_line("notifications/tools/list_changed")) == {
        "jsonrpc": "2.0",
        "method": "notifications/tools/list_changed",
    }


def test_a_value_that_json_lacks_raises() -> None:
    """Only strings are mended; anything else would hide a mistake of ours."""
    with pytest.raises(TypeError):
        result_line(1, {"a": object()})
