"""Requests, replies and events as JSON: each is read as it was written, and any input has an answer."""

import contextlib
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conclave import base64url
from conclave.errors import Code, FrameError, Refusal
from conclave.model import MachineInfo, Plain, Sealed, Visibility
from conclave.protocol import events, requests, v2
from conclave.protocol.body import Body, SealedBody, body_of, payload_of
from conclave.protocol.v2 import close_codes

TEXT = st.text(max_size=8)
BODY = st.builds(Body, text=TEXT) | st.builds(Body, sealed=st.builds(SealedBody, TEXT, st.none() | TEXT))
NUMBER = st.integers(-(2**53) + 1, 2**53 - 1)
BY_TYPE: dict[Any, st.SearchStrategy[Any]] = {
    str: TEXT,
    str | None: st.none() | TEXT,
    int: NUMBER,
    int | None: st.none() | NUMBER,
    float | None: st.none() | st.floats(allow_nan=False, allow_infinity=False),
    bool: st.booleans(),
    Body: BODY,
    Visibility: st.sampled_from(Visibility),
}


def every(types: list[type[Any]]) -> st.SearchStrategy[Any]:
    """Objects of these structs with all their fields, optional ones included."""
    return st.one_of(
        *(
            st.builds(type_, **{field.name: BY_TYPE[field.type] for field in msgspec.structs.fields(type_)})
            for type_ in types
        )
    )


REQUEST = every(requests.Request.__subclasses__())
EVENT = every(events.Event.__subclasses__())
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)


@given(NUMBER, REQUEST)
def test_a_request_is_read_as_it_was_written(number: int, request: requests.Request[Any]) -> None:
    """Every operation with every field, with any strings."""
    assert v2.decode_request(v2.encode_request(number, request)) == v2.Incoming(number, request)
    assert v2.decode_request(v2.encode_request(number, request).decode()) == v2.Incoming(number, request)


@given(EVENT)
def test_an_event_is_read_as_it_was_written(event: events.Event) -> None:
    """Every event."""
    assert v2.decode_message(v2.encode_event(event)) == event


@given(NUMBER)
def test_a_result_is_read_as_it_was_written(number: int) -> None:
    """With fields and without."""
    for request, result in (
        (requests.Ping, requests.Done()),
        (requests.ListMachines, requests.Machines((MachineInfo("laptop", "key", "now"),))),
        (requests.Join, requests.Joined("ops", "1-0", recovered=False)),
    ):
        answer = v2.decode_message(v2.encode_result(number, result))
        assert isinstance(answer, v2.Reply)
        assert answer.re == number
        assert v2.decode_result(answer, request) == result


@pytest.mark.parametrize("code", Code)
@pytest.mark.parametrize(("number", "retry"), [(7, None), (None, None), (0, 1.5)])
def test_a_refusal_is_read_as_it_was_written(code: Code, number: int | None, retry: float | None) -> None:
    """Every code, with its text and when to ask again."""
    data = v2.encode_error(number, Refusal(code, "why `ö`", retry_after=retry))
    assert ("retry_after" in json.loads(data)["error"]) == (retry is not None)
    answer = v2.decode_message(data)
    assert isinstance(answer, v2.Reply)
    assert answer.re == number
    with pytest.raises(Refusal) as caught:
        v2.decode_result(answer, requests.Ping)
    assert (caught.value.code, caught.value.message, caught.value.retry_after) == (code, "why `ö`", retry)


def test_additions_of_a_later_server_are_no_error() -> None:
    """Unknown fields, events and codes: a client of today goes on."""
    assert v2.decode_message('{"ev":"gap","channel":"ops","after":"1-0","why":{}}') == events.Gap("ops", "1-0")
    assert v2.decode_message('{"ev":"weather","rain":true}') is None
    answer = v2.decode_message('{"re":1,"error":{"code":"tired","message":"no"}}')
    assert isinstance(answer, v2.Reply)
    assert answer.refusal is not None
    assert answer.refusal.code is Code.INTERNAL


@pytest.mark.parametrize("data", ["{}", "[]", "{", '{"re":"x"}', '{"ev":"gap"}', '{"re":1,"error":{}}', b"\xff"])
def test_invalid_messages_of_a_server_are_refused(data: bytes | str) -> None:
    """An error that the link understands, not one of a library."""
    with pytest.raises(FrameError):
        v2.decode_message(data)


def bad(data: bytes | str) -> v2.BadRequest:
    with pytest.raises(v2.BadRequest) as caught:
        v2.decode_request(data)
    assert caught.value.code is Code.MALFORMED
    return caught.value


@pytest.mark.parametrize("number", ["1.0", "1e0", "true", "null", '"1"', "[1]", "{}", "9007199254740992", "-0.5"])
def test_a_number_that_is_no_integer_is_refused_without_one(number: str) -> None:
    """An id must be exact in every client; a bool or a fraction never is."""
    assert bad(f'{{"id":{number},"op":"ping"}}').id is None


def test_an_object_without_a_number_is_refused_without_one() -> None:
    """The reply has `re: null`."""
    assert bad('{"op":"ping"}').id is None
    assert json.loads(v2.encode_error(None, bad("{}")))["re"] is None


@pytest.mark.parametrize(
    ("rest", "why"),
    [
        ('"op":"dance"', 'unknown operation "dance"'),
        ('"op":7', "unknown operation 7"),
        ('"x":1', "unknown operation (none)"),
        ('"op":"join"', "Object missing required field `channel`"),
        ('"op":"join","channel":7', "Expected `str`, got `int` - at `$.channel`"),
        ('"op":"send","channel":"a","body":{}', "a body has either `text` or `sealed` - at `$.body`"),
        ('"op":"send","channel":"a","body":{"text":"","sealed":{"ciphertext":""}}', "a body has either"),
        ('"op":"channel.create","channel":"a","visibility":"secret"', "Invalid enum value 'secret'"),
        ('"op":"history","channel":"a","limit":1.5', "Expected `int | null`, got `float` - at `$.limit`"),
        ('"op":"send","channel":"a","body":{"text":"\\ud800"}', "invalid JSON: "),
    ],
)
def test_a_request_with_a_flaw_is_refused_by_its_number(rest: str, why: str) -> None:
    """So the client that waits for this reply gets it, and reads what is wrong."""
    refusal = bad(f'{{"id":-5,{rest}}}')
    assert refusal.id == -5
    assert refusal.message.startswith(why)


@pytest.mark.parametrize(
    "data",
    [
        *("", "ping", "[]", "null", "7", '"text"', '{"id":1', '{"id":1} x', "\ufeff{}"),
        *(b"\xff", b'{"id":1,"op":"\xff"}', "[" * 100_000, '{"a":' * 5000 + "1" + "}" * 5000),
    ],
)
def test_what_is_no_json_object_is_not_the_protocol(data: bytes | str) -> None:
    """Not an answerable request: the sender speaks another protocol."""
    with pytest.raises(FrameError):
        v2.decode_request(data)


@given(JSON)
def test_any_json_is_read_or_refused(value: object) -> None:
    """Any object has an answer, with its number if that is valid."""
    caught: Exception | None = None
    try:
        v2.decode_request(json.dumps(value))
    except (v2.BadRequest, FrameError) as error:
        caught = error
    if isinstance(caught, FrameError):
        assert not isinstance(value, dict)
    elif isinstance(caught, v2.BadRequest):
        assert isinstance(value, dict)
        number = value.get("id")
        good = isinstance(number, int) and not isinstance(number, bool) and abs(number) < 2**53
        assert caught.id == (number if good else None)


@given(st.binary(max_size=60) | st.text(max_size=60))
def test_any_bytes_are_read_or_refused(data: bytes | str) -> None:
    """No other error comes out, on either side."""
    for decode in (v2.decode_request, v2.decode_message):
        with contextlib.suppress(v2.BadRequest, FrameError):
            decode(data)


@given(st.binary(max_size=80))
def test_base64url_has_one_spelling(data: bytes) -> None:
    """No padding, no second text for the same bytes."""
    text = base64url.encode(data)
    assert base64url.decode(text) == data
    assert "=" not in text
    for other in (text + "=", text + "\n", text + "A" if len(text) % 4 == 0 else text + "==="):
        with pytest.raises(ValueError, match=r"base64url|extra bits"):
            base64url.decode(other)


@given(st.builds(Plain, TEXT) | st.builds(Sealed, st.binary(max_size=40), st.none() | TEXT))
def test_a_body_is_kept_byte_for_byte(payload: Plain | Sealed) -> None:
    """Stored and delivered bodies are equal, sealed ones included."""
    assert payload_of(body_of(payload)) == payload


def test_a_sealed_body_has_to_be_base64url() -> None:
    """A refusal, not a crash, and not something that other clients cannot read."""
    with pytest.raises(Refusal, match="invalid ciphertext"):
        payload_of(Body(sealed=SealedBody("a+b/")))


def test_every_refused_login_has_a_close() -> None:
    """For any error."""
    assert {code: int(close_codes.login_close(code)) for code in Code} == {
        Code.MALFORMED: 4007,
        Code.VERSION: 4006,
        Code.UNAUTHORIZED: 4006,
        Code.NOT_FOUND: 4006,
        Code.CONFLICT: 4006,
        Code.TOO_LARGE: 4006,
        Code.RATE_LIMITED: 1013,
        Code.UNAVAILABLE: 1013,
        Code.INTERNAL: 1011,
    }


def test_enumerations_are_strings() -> None:
    """As in the protocol's page."""
    create = requests.ChannelCreate("ops", Visibility.UNLISTED)
    assert json.loads(v2.encode_request(1, create)) == {
        "id": 1,
        "op": "channel.create",
        "channel": "ops",
        "visibility": "unlisted",
    }


def test_a_reason_does_not_repeat_what_was_sent() -> None:
    """A request may be as long as a frame; its refusal fits a line, for any text of the decoder."""
    long = "x" * 1_000_000
    for text in (f'{{"id":1,"op":"channel.create","channel":"c","visibility":"{long}"}}', f'{{"id":1,"op":"{long}"}}'):
        with pytest.raises(v2.BadRequest) as refused:
            v2.decode_request(text)
        assert refused.value.id == 1
        assert len(str(refused.value)) < 400


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "utf-8-sig"])
def test_json_is_utf_8(encoding: str) -> None:
    """Bytes are read as a text is: no other encoding is guessed."""
    with pytest.raises(FrameError):
        v2.decode_request('{"id":1,"op":"ping"}'.encode(encoding))
