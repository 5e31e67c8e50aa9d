"""Matching of replies to requests in a protocol without request ids."""

import pytest

from conclave.client.exchange import CLOSED, Answer, Ending, Outcome, Received
from conclave.client.v1.exchange import UNKNOWN_OPERATION, V1Exchange
from conclave.errors import FrameError, OutOfStep, Refusal, in_words
from conclave.model import Plain, Sealed, SessionPath
from conclave.protocol import events, requests
from conclave.protocol.body import Body, SealedBody
from conclave.protocol.close_texts import IDLE, KEY_REVOKED, SLOW, SUPERSEDED
from conclave.protocol.limits import FRAME_BYTES
from conclave.protocol.requests import AclAdd, AclPromote, Audit, Join, Ping, Request, Send, Who
from conclave.protocol.v1 import decode, encode
from conclave.protocol.v1.frames import (
    Ack,
    ChannelMsg,
    Error,
    Frame,
    History,
    Internal,
    Joined,
    MalformedFrame,
    NotFound,
    Pong,
    Presence,
    ServerInfo,
    Unauthorized,
    Whisper,
)
from tests.support.v1_forms import FORMS, ME, Form

BOB = SessionPath("bob", "desktop", "y")
POST = Send("ops", Body(text="hi"))


class Exchange(V1Exchange[int]):
    """An exchange whose tickets are numbers, fed with frames."""

    def receive_frame(self, frame: Frame) -> Outcome[int] | None:
        return self.receive(encode(frame))


def exchange(*requests: Request[object]) -> Exchange:
    made = Exchange(ME)
    for number, request in enumerate(requests):
        made.ask(request, number)
    return made


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_a_request_has_its_frame_and_its_kind_of_reply(form: Form) -> None:
    """With all fields that the frames have."""
    made = Exchange(ME)
    assert decode(made.ask(form.request, 7)) == form.frame
    assert made.receive_frame(form.reply) == Answer(7, form.result)
    assert made.open_tickets() == []


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_a_request_takes_no_other_reply(form: Form) -> None:
    """One lost reply would shift every later answer to the wrong question."""
    for other in FORMS:
        if type(other.reply) is not type(form.reply) and not isinstance(other.reply, Pong):
            with pytest.raises(OutOfStep, match="unexpected response"):
                exchange(form.request).receive_frame(other.reply)


@pytest.mark.parametrize(
    ("request_", "reply"),
    [
        (Join("ops"), Joined("dev")),
        (requests.History("ops", after_ts=0), History("dev", ())),
        (Who("ops"), Presence(None, ())),
    ],
)
def test_a_reply_about_another_channel_is_no_answer(request_: Request[object], reply: Frame) -> None:
    """Two joins in a row are distinguished by their channel."""
    with pytest.raises(OutOfStep):
        exchange(request_).receive_frame(reply)


def test_replies_answer_requests_oldest_first() -> None:
    """The server handles them one by one."""
    pending = exchange(Join("a"), Join("b"), Who())
    assert pending.receive_frame(Joined("a")) == Answer(0, requests.Joined("a"))
    assert isinstance(pending.receive_frame(ChannelMsg("ops", BOB, Plain("hi"))), Received)
    assert pending.receive_frame(Joined("b")) == Answer(1, requests.Joined("b"))
    assert pending.open_tickets() == [2]


@pytest.mark.parametrize(
    ("frame", "event"),
    [
        (ChannelMsg("ops", BOB, Plain("")), events.Message("ops", "bob/desktop/y", Body(text=""))),
        (
            ChannelMsg("ops", BOB, Sealed(b"\xff\xfe\xfd\xfc", "k")),
            events.Message("ops", "bob/desktop/y", Body(sealed=SealedBody("__79_A", "k"))),
        ),
        (Whisper(BOB, ME, Plain("psst")), events.Whispered("bob/desktop/y", Body(text="psst"))),
        (ServerInfo(admin=True), events.Role(admin=True)),
    ],
)
def test_an_event_answers_nothing(frame: Frame, event: events.Event) -> None:
    """A message that arrives between a request and its reply is not the reply."""
    pending = exchange(POST)
    assert pending.receive_frame(frame) == Received(event)
    assert pending.receive_frame(Ack()) == Answer(0, requests.Sent())


def test_an_unexpected_pong_is_ignored() -> None:
    """It answers a question that is no longer of interest."""
    assert exchange().receive_frame(Pong()) is None
    assert exchange(Who()).receive_frame(Pong()) is None


def test_an_unexpected_reply_ends_the_link() -> None:
    """The next request would take the wrong one."""
    with pytest.raises(OutOfStep):
        exchange().receive_frame(Ack())


def test_an_unreadable_frame_means_nothing_unless_it_may_be_a_reply() -> None:
    """A later server may send other events; but a lost reply cannot be matched to its request."""
    assert exchange().receive(b"\x7f") is None
    with pytest.raises(OutOfStep, match="undecodable response"):
        exchange(Who()).receive(b"\x7f")


def test_an_error_refuses_the_oldest_request() -> None:
    """With its kind and text."""
    answer = exchange(Join("a"), Join("b")).receive_frame(Error(NotFound("channel `a` not found")))
    assert isinstance(answer, Answer)
    assert answer.ticket == 0
    assert isinstance(answer.result, Refusal)
    assert in_words(answer.result) == "not found: channel `a` not found"


# --- What is not asked ---


def test_a_frame_over_the_cap_is_not_asked() -> None:
    """The server would drop the connection for it; one of exactly that size it takes."""
    made = Exchange(ME)
    overhead = len(made.ask(Send("ops", Body(text="x" * 70_000)), 0)) - 70_000
    fitting = FRAME_BYTES - overhead
    assert len(made.ask(Send("ops", Body(text="x" * fitting)), 1)) == FRAME_BYTES
    with pytest.raises(Refusal, match=f"^a frame of {FRAME_BYTES + 1} bytes exceeds the {FRAME_BYTES} byte cap$"):
        made.ask(Send("ops", Body(text="x" * (fitting + 1))), 2)
    assert made.open_tickets() == [0, 1]


def test_what_cannot_be_written_is_not_asked() -> None:
    """A shell hands over bytes that are no text as lone surrogates."""
    made = Exchange(ME)
    with pytest.raises(FrameError):
        made.ask(Join("\udcff"), 0)
    assert made.open_tickets() == []


# --- The end ---


@pytest.mark.parametrize("reason", [SUPERSEDED, IDLE, SLOW, KEY_REVOKED, "session terminated"])
def test_a_kill_answers_no_request(reason: str) -> None:
    """The request may have succeeded: the kill is about the session."""
    pending = exchange(POST)
    assert pending.receive_frame(Error(Unauthorized(reason))) is None
    assert pending.open_tickets() == [0]
    assert pending.closed((1000, "")) == Ending(reason, f"unauthorized: {reason}")


@pytest.mark.parametrize("pending", [exchange(), exchange(Ping())])
def test_an_error_that_refuses_nothing_announces_the_close(pending: Exchange) -> None:
    """With nothing open, or only a ping, which no server refuses."""
    assert pending.receive_frame(Error(Internal("going away"))) is None
    assert pending.closed((1000, "")) == Ending("going away", "internal error: going away")


def test_a_refusal_is_the_reason_of_a_close_that_follows_it() -> None:
    """A server may end a session with a text that is unknown here; a frame in between shows that it went on."""
    pending = exchange(POST, POST)
    pending.receive_frame(Error(MalformedFrame("what?")))
    assert pending.closed((1000, "")) == Ending("what?", "malformed frame: what?")
    pending.receive_frame(Ack())
    assert pending.closed((1000, "")) == Ending(None, CLOSED)


@pytest.mark.parametrize(
    ("open_", "orderly", "meaning"),
    [
        ([], True, CLOSED),
        ([Join("ops")], True, CLOSED),
        ([AclAdd("ops", "bob")], True, CLOSED),
        ([AclPromote("ops", "bob")], True, UNKNOWN_OPERATION),
        ([Ping(), Audit(9)], True, UNKNOWN_OPERATION),
        ([AclPromote("ops", "bob")], False, CLOSED),
    ],
)
def test_a_silent_close_after_an_appended_operation_means_an_older_server(
    open_: list[Request[object]], orderly: bool, meaning: str
) -> None:
    """It could not read the request; a server that dies does not close in good order."""
    assert exchange(*open_).closed((1000, "") if orderly else None) == Ending(None, meaning)
