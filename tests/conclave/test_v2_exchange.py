"""Matching of replies to requests by their numbers."""

import contextlib
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conclave.client.exchange import CLOSED, Answer, Ending, Received
from conclave.client.v2.exchange import V2Exchange
from conclave.errors import Code, FrameError, OutOfStep, Refusal
from conclave.protocol import events, requests
from conclave.protocol.body import Body
from conclave.protocol.limits import FRAME_BYTES
from conclave.protocol.requests import Done, History, Join, Joined, Ping, Request, Send, Sent, Who
from conclave.protocol.v2 import CloseCode, encode_error, encode_event, encode_result

POST = Send("ops", Body(text="hi"), "key")
MESSAGE = events.Message("ops", "bob/desktop/y", Body(text="hi"), "5-0", 5)


def exchange(*asked: Request[Any]) -> V2Exchange[int]:
    made: V2Exchange[int] = V2Exchange()
    for ticket, request in enumerate(asked):
        made.ask(request, ticket)
    return made


def test_a_request_is_sent_with_a_number_of_its_own() -> None:
    """With every field, including those that v1 lacks."""
    made = exchange()
    first, second = (json.loads(made.ask(POST, ticket)) for ticket in range(2))
    assert first == {"id": 1, "op": "send", "channel": "ops", "body": {"text": "hi"}, "key": "key"}
    assert second == {**first, "id": 2}
    assert json.loads(made.ask(Join("ops", since="5-0"), 2))["since"] == "5-0"


def test_a_reply_goes_to_the_request_that_it_names() -> None:
    """In any order; it is read as the result of that request."""
    made = exchange(Ping(), Join("ops"), POST)
    assert made.receive(encode_result(3, Sent("6-0", 6))) == Answer(2, Sent("6-0", 6))
    assert made.receive(encode_result(1, Done())) == Answer(0, Done())
    assert made.open_tickets() == [1]
    joined = Joined("ops", "5-0", recovered=True, admin=False)
    assert made.receive(encode_result(2, joined)) == Answer(1, joined)
    assert made.open_tickets() == []


def test_a_refusal_goes_to_its_request_with_its_code() -> None:
    """And with when to ask again."""
    answer = exchange(Who()).receive(encode_error(1, Refusal(Code.UNAVAILABLE, "away", retry_after=1.5)))
    assert isinstance(answer, Answer)
    assert isinstance(answer.result, Refusal)
    assert (answer.result.code, answer.result.message, answer.result.retry_after) == (Code.UNAVAILABLE, "away", 1.5)


@pytest.mark.parametrize(
    "data",
    [
        encode_result(2, Done()),
        encode_result(0, Done()),
        encode_error(2, Refusal(Code.INTERNAL, "no")),
        encode_error(None, Refusal(Code.MALFORMED, "what?")),
        b'{"re":1,"sessions":5}',
        b"{}",
        b"[]",
        b"\xff",
        b'{"ev":"message","channel":"ops"}',
    ],
)
def test_what_cannot_be_trusted_is_out_of_step(data: bytes) -> None:
    """A reply without a request, a refusal of an unreadable message, a message that cannot be read."""
    made = exchange(Who())
    with pytest.raises(OutOfStep):
        made.receive(data)
    assert made.open_tickets() == [0], "it fails with the link"


def test_a_second_reply_to_one_request_is_out_of_step() -> None:
    """One of the two was meant for another request."""
    made = exchange(Ping(), Ping())
    made.receive(encode_result(1, Done()))
    with pytest.raises(OutOfStep, match="a result to request 1, which is not open"):
        made.receive(encode_result(1, Done()))


@pytest.mark.parametrize(
    "event",
    [
        MESSAGE,
        events.Whispered("bob/desktop/y", Body(text="psst"), "x", 5),
        events.Left("ops", "kicked"),
        events.Renamed("ops", "dev"),
        events.Gap("ops", "5-0"),
        events.Role(admin=True),
    ],
)
def test_an_event_answers_nothing(event: events.Event) -> None:
    """A message that arrives between a request and its reply is not the reply."""
    made = exchange(POST)
    assert made.receive(encode_event(event)) == Received(event)
    assert made.receive(encode_result(1, Sent())) == Answer(0, Sent())


def test_events_of_a_later_version_are_skipped() -> None:
    """An event that is not known here, and fields of those that are."""
    made = exchange()
    assert made.receive(b'{"ev":"weather","rain":true}') is None
    assert made.receive(encode_event(MESSAGE)[:-1] + b',"colour":"red"}') == Received(MESSAGE)


# --- What is not asked ---


def test_a_message_over_the_cap_is_not_asked() -> None:
    """The server would drop the connection for it."""
    made = exchange()
    overhead = len(made.ask(Send("ops", Body(text="")), 0))
    fitting = FRAME_BYTES - overhead
    assert len(made.ask(Send("ops", Body(text="x" * fitting)), 1)) == FRAME_BYTES
    with pytest.raises(Refusal, match=f"^a frame of {FRAME_BYTES + 1} bytes exceeds the {FRAME_BYTES} byte cap$"):
        made.ask(Send("ops", Body(text="x" * (fitting + 1))), 2)
    assert made.open_tickets() == [0, 1]


def test_what_cannot_be_written_is_not_asked() -> None:
    """A shell hands over bytes that are no text as lone surrogates."""
    made = exchange()
    with pytest.raises(FrameError):
        made.ask(Join("\udcff"), 0)
    assert made.open_tickets() == []


# --- The end ---


def test_the_last_event_has_the_reason() -> None:
    """The whole reason, and the time of a retry; a close frame has room for less."""
    made = exchange(POST)
    closing = events.Closing(CloseCode.LATER, "the relay is overloaded", 3)
    assert made.receive(encode_event(closing)) is None
    assert made.closed((CloseCode.LATER, "the relay")) == Ending(closing.reason, closing.reason, closing.code, 3)
    assert made.closed(None) == Ending(closing.reason, closing.reason, closing.code, 3)


@pytest.mark.parametrize(
    ("close", "ending"),
    [
        (None, Ending(None, CLOSED)),
        ((4001, "superseded"), Ending("superseded", "superseded", 4001)),
        ((1012, ""), Ending(None, f"{CLOSED} (code 1012)", 1012)),
    ],
)
def test_without_that_event_the_close_frame_does(close: tuple[int, str] | None, ending: Ending) -> None:
    """It may be all that a balancer lets through."""
    assert exchange().closed(close) == ending


# --- In any order ---


_ASKED: list[tuple[Request[Any], msgspec.Struct]] = [
    (Ping(), Done()),
    (Join("ops"), Joined("ops", "1-0", admin=True)),
    (POST, Sent("2-0", 2)),
    (Who("ops"), requests.Sessions(("a/b/c",))),
    (History("ops"), requests.Page((), more=False)),
]


@given(st.data())
def test_every_reply_finds_its_request_among_any_events(data: st.DataObject) -> None:
    """Requests, replies in any order and events, interleaved at will."""
    made = exchange()
    waiting: dict[int, msgspec.Struct] = {}
    for ticket in range(data.draw(st.integers(0, 30))):
        step = data.draw(st.sampled_from(["ask", "ask", "reply", "event"]))
        if step == "ask":
            request, result = data.draw(st.sampled_from(_ASKED))
            number = json.loads(made.ask(request, ticket))["id"]
            assert number not in waiting
            waiting[number] = result
        elif step == "event":
            assert made.receive(encode_event(MESSAGE)) == Received(MESSAGE)
        elif waiting:
            number = data.draw(st.sampled_from(sorted(waiting)))
            answer = made.receive(encode_result(number, waiting.pop(number)))
            assert isinstance(answer, Answer)
        assert len(made.open_tickets()) == len(waiting)


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_no_bytes_crash_an_exchange(data: bytes) -> None:
    """Being out of step is the worst that a server can do to it."""
    with contextlib.suppress(OutOfStep):
        exchange(Who()).receive(data)
